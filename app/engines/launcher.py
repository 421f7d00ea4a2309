"""Starts engine processes, and keeps one standing by that has imported everything and waits to be told its model."""

import asyncio
import time
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path

import orjson
import structlog

from app.engines.command import Command, Program
from app.processes import end_group, spawn

log = structlog.get_logger()

PRELOADED = Path(__file__).with_name("preloaded.py")
BESIDE_OTHERS = 10  # how nice a standby is while it imports
RETRY_SECONDS = 60.0
GRACE_SECONDS = 1.0


class Launcher:
    """Somebody calls `replenish()` now and then while the machine has time for it, and `close()` at the end.

    A standby that still imports when it is taken goes on with that, and obeys then: no start is slower for it.
    """

    def __init__(self, folder: Path, program: Program, *, standbys: int) -> None:
        self._folder = folder
        self._program = program
        self._wanted = standbys
        self._standbys: list[Process] = []
        self._is_first = True
        self._retry_at = 0.0

    @property
    def standby_log(self) -> Path:
        return self._folder / "standby.log"

    async def launch(self, program: Program, log_path: Path) -> Process:
        """A process that waits for `give_order`; what it says until then is in `log_path`, or in the standbys' log."""
        if program == self._program:
            self._forget_the_dead()
            if self._standbys:
                return self._standbys.pop(0)
        return await self._spawn(program, log_path, niceness=0)

    async def replenish(self) -> None:
        self._forget_the_dead()
        if len(self._standbys) >= self._wanted or time.monotonic() < self._retry_at:
            return
        niceness = 0 if self._is_first else BESIDE_OTHERS
        self._is_first = False
        self._standbys.append(await self._spawn(self._program, self.standby_log, niceness=niceness))

    async def close(self) -> None:
        self._wanted = 0
        standbys, self._standbys = self._standbys, []
        await asyncio.gather(*(end_group(process, grace_seconds=GRACE_SECONDS) for process in standbys))

    def _forget_the_dead(self) -> None:
        for process in [each for each in self._standbys if each.returncode is not None]:
            log.warning("a standby engine died", status=process.returncode, log=str(self.standby_log))
            self._standbys.remove(process)
            self._retry_at = time.monotonic() + RETRY_SECONDS

    async def _spawn(self, program: Program, log_path: Path, *, niceness: int) -> Process:
        # -P: the script's folder holds our modules, and none of them is to be taken for another's.
        argv = [str(program.python), "-P", str(PRELOADED), str(self._folder), str(niceness), *program.preload]
        with log_path.open("wb") as output:
            return await spawn(argv, log=output, env=program.env, stdin=PIPE)


async def give_order(process: Process, command: Command, *, log_path: Path, fork_socket: Path) -> None:
    """Tell a process from `launch` what to become. One that has ended meanwhile is not told, and not an error here."""
    assert process.stdin
    order = {
        "module": command.program.module,
        "arguments": command.arguments,
        "env": command.env,
        "log": str(log_path),
        "fork_socket": str(fork_socket) if command.program.forks else None,
    }
    with suppress(ConnectionError):
        process.stdin.write(orjson.dumps(order) + b"\n")
        await process.stdin.drain()
    process.stdin.close()
