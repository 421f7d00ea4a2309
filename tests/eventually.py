"""Waiting in tests for what happens in another process."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

Result = TypeVar("Result")


@overload
async def eventually(look: Callable[[], Awaitable[Result | None]], *, within_seconds: float = ...) -> Result: ...
@overload
async def eventually(look: Callable[[], Result | None], *, within_seconds: float = ...) -> Result: ...
async def eventually(look: Callable[[], Any], *, within_seconds: float = 15.0) -> Any:
    """What `look` finds, as soon as it is something true."""
    deadline = time.monotonic() + within_seconds
    while True:
        found = look()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def until(look: Callable[[], Result | None], *, within_seconds: float = 15.0) -> Result:
    """The same for tests without a loop."""
    deadline = time.monotonic() + within_seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return found
