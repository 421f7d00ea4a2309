"""Children in process groups of their own, which do not outlive the process that started them."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import IO

import anyio

from app import tied


async def spawn(
    argv: Sequence[str],
    *,
    log: IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    orphan_signal: signal.Signals = signal.SIGTERM,
    stdin: int = asyncio.subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
) -> asyncio.subprocess.Process:
    """Start `argv` as the leader of a new process group; `env` is added to our own environment.

    When this process dies, however it dies, Linux sends the leader `orphan_signal`.
    """
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-SEP", tied.__file__),
        *(str(os.getpid()), str(int(orphan_signal))),
        *argv,
        stdin=stdin,
        stdout=log,
        stderr=log,
        env={**os.environ, **(env or {})},
        start_new_session=True,
        pass_fds=pass_fds,
    )


def signal_group(pgid: int, number: signal.Signals) -> bool:
    """Whether there was anybody in the group to hear it."""
    try:
        os.killpg(pgid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


async def end_group(process: asyncio.subprocess.Process, *, grace_seconds: float) -> None:
    """SIGTERM to the leader's group, grace, SIGKILL, wait. A leader that has gone may have left others behind."""
    try:
        if process.returncode is None and signal_group(process.pid, signal.SIGTERM):
            # Not asyncio's timeout: in a task that is being cancelled it ends the task before Python 3.11.4.
            with anyio.move_on_after(grace_seconds):
                await process.wait()
    finally:  # also when we are cancelled
        signal_group(process.pid, signal.SIGKILL)
    await process.wait()
