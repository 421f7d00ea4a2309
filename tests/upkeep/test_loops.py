"""What a gateway does on the side goes on, whatever fails on the way."""

import asyncio

import pytest

from app.upkeep.loops import repeat

pytestmark = pytest.mark.anyio


async def test_a_step_that_fails_is_tried_again() -> None:
    n_calls, enough = 0, asyncio.Event()

    async def step() -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 3:
            enough.set()
        raise OSError("away")

    loop = asyncio.create_task(repeat("test", step, 0.0))
    await asyncio.wait_for(enough.wait(), 5)
    loop.cancel()
    await asyncio.wait([loop])
    assert loop.cancelled()
