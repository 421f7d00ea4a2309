"""Servers under test: started in groups of their own, watched from outside."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil

from app.processes import end_group, spawn

GRACE_SECONDS = 10
CPUCLOCK_SCHED = 2
QUIET_SHARE = 0.05
QUIET_WITHIN_SECONDS = 30


class CannotStart(Exception):
    """The message has the server's last words."""


@asynccontextmanager
async def running(argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> AsyncIterator[int]:
    """The pid of `argv`, whose output goes to `log`; its group is ended with the block."""
    with log.open("wb") as output:
        process = await spawn(argv, log=output, env=env)
    try:
        yield process.pid
    finally:
        await end_group(process, grace_seconds=GRACE_SECONDS)


async def until_answered(url: str, pid: int, log: Path, *, within_seconds: float = 60) -> None:
    """Until a GET is answered with 200. Raises CannotStart."""
    deadline = time.monotonic() + within_seconds
    async with httpx.AsyncClient(timeout=5) as client:
        while time.monotonic() < deadline and is_alive(pid):
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
    raise CannotStart(f"{url} does not answer: {last_words(log)}")


def last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-3:])[-300:] or "it said nothing"


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def tree_of(pid: int) -> list[int]:
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of all their threads so far, to the nanosecond: /proc tells it in steps of 10 ms."""
    return sum(time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED) for pid in pids)


def resident_bytes(pids: Sequence[int]) -> int:
    return sum(psutil.Process(pid).memory_info().rss for pid in pids)


async def until_quiet(pids: Sequence[int]) -> None:
    """Until what was abandoned is cleaned up, or half a minute is over."""
    deadline = time.monotonic() + QUIET_WITHIN_SECONDS
    while time.monotonic() < deadline:
        before = cpu_seconds(pids)
        await asyncio.sleep(0.1)
        if cpu_seconds(pids) - before < 0.1 * QUIET_SHARE:
            return


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
