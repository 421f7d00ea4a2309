"""Engines that have imported everything before they are told what to become."""

import asyncio
import signal
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.engines.command import Command, Program
from app.engines.launcher import Launcher, give_order
from app.processes import end_group
from tests.engines.running import engine_in, processes_of
from tests.eventually import eventually, until

pytestmark = pytest.mark.anyio

# What takes long to import, and tells each time that it is.
HEAVY = """
import os, pathlib
with pathlib.Path(os.environ["IMPORTS"]).open("a") as file:
    file.write("imported\\n")
"""
STARTS_A_THREAD = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
TAKES_LONG = """
import time
time.sleep(1)
"""
# As vLLM does: the server starts an engine core, which starts a worker.
SERVER = """
import multiprocessing, os, signal, sys
import heavy

def work():
    print("worker", os.environ["MODEL"], os.environ.get("SET_LATER"), flush=True)
    sys.exit(3)

def schedule():
    os.environ["SET_LATER"] = "yes"
    worker = multiprocessing.get_context("spawn").Process(target=work)
    worker.start()
    worker.join()
    print("worker ended with", worker.exitcode, signal.getsignal(signal.SIGTERM), flush=True)

if __name__ == "__main__":
    print("server", sys.argv[1:], flush=True)
    core = multiprocessing.get_context("spawn").Process(target=schedule)
    core.start()
    core.join()
    print("core ended with", core.exitcode, flush=True)
"""


def program_in(folder: Path, *, heavy: str = HEAVY) -> Program:
    (folder / "heavy.py").write_text(heavy)
    (folder / "server.py").write_text(SERVER)
    env = {"PYTHONPATH": str(folder), "IMPORTS": str(folder / "imports")}
    return Program(Path(sys.executable), "server", ("heavy",), env, forks=True)


@asynccontextmanager
async def launcher_in(folder: Path, program: Program) -> AsyncIterator[Launcher]:
    launcher = Launcher(folder, program, standbys=1)
    try:
        yield launcher
    finally:
        await launcher.close()


async def is_standing_by(launcher: Launcher) -> None:
    await launcher.replenish()
    await eventually(lambda: "standing by" in launcher.standby_log.read_text())


async def launch(launcher: Launcher, program: Program, folder: Path) -> Process:
    """A process that has been told to be the server, with its output in `engine.log`."""
    log_path = folder / "engine.log"
    process = await launcher.launch(program, log_path)
    command = Command(program, ["--model", "m"], {"MODEL": "m"})
    await give_order(process, command, log_path=log_path, fork_socket=folder / "x.fork")
    return process


async def run(launcher: Launcher, program: Program, folder: Path) -> list[str]:
    """All that it says until it ends."""
    process = await launch(launcher, program, folder)
    try:
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        await end_group(process, grace_seconds=1)
    return (folder / "engine.log").read_text().splitlines()


def imports(folder: Path) -> int:
    return (folder / "imports").read_text().count("imported")


SAID = [
    "server ['--model', 'm']",
    "worker m yes",
    f"worker ended with 3 {signal.SIG_DFL}",
    "core ended with 0",
]


async def test_a_standby_becomes_the_engine_and_its_children_import_nothing_again(tmp_path: Path) -> None:
    program = program_in(tmp_path)
    async with launcher_in(tmp_path, program) as launcher:
        await is_standing_by(launcher)
        assert await run(launcher, program, tmp_path) == SAID
        assert imports(tmp_path) == 1


async def test_without_a_standby_it_is_the_same_but_for_the_wait(tmp_path: Path) -> None:
    program = program_in(tmp_path)
    async with launcher_in(tmp_path, program) as launcher:
        assert (await run(launcher, program, tmp_path))[1:] == SAID
        assert imports(tmp_path) == 1


async def test_a_standby_that_still_imports_obeys_as_soon_as_it_has(tmp_path: Path) -> None:
    program = program_in(tmp_path, heavy=HEAVY + TAKES_LONG)
    async with launcher_in(tmp_path, program) as launcher:
        await launcher.replenish()
        assert await run(launcher, program, tmp_path) == SAID
        assert imports(tmp_path) == 1


async def test_what_cannot_be_forked_is_spawned(tmp_path: Path) -> None:
    program = program_in(tmp_path, heavy=HEAVY + STARTS_A_THREAD)
    async with launcher_in(tmp_path, program) as launcher:
        await is_standing_by(launcher)
        assert await run(launcher, program, tmp_path) == SAID
        assert imports(tmp_path) == 3


async def test_a_standby_that_died_is_passed_over_and_not_followed_by_another_at_once(tmp_path: Path) -> None:
    program = program_in(tmp_path)
    async with launcher_in(tmp_path, program) as launcher:
        await is_standing_by(launcher)
        [standby] = launcher._standbys
        standby.kill()
        await standby.wait()
        await launcher.replenish()
        assert launcher._standbys == []
        assert (await run(launcher, program, tmp_path))[1:] == SAID


async def test_an_import_that_fails_is_told_where_the_engine_is_looked_for(tmp_path: Path) -> None:
    program = program_in(tmp_path, heavy="raise ImportError('no such library')")
    async with launcher_in(tmp_path, program) as launcher:
        await is_standing_by(launcher)
        process = await launch(launcher, program, tmp_path)
        assert await process.wait() == 1
        assert "no such library" in (tmp_path / "engine.log").read_text()


async def test_another_program_is_not_the_standbys_business(tmp_path: Path) -> None:
    program = program_in(tmp_path)
    other = Program(program.python, program.module, program.preload, {**program.env, "OTHER": "1"}, forks=True)
    async with launcher_in(tmp_path, program) as launcher:
        await is_standing_by(launcher)
        assert (await run(launcher, other, tmp_path))[1:] == SAID
        assert len(launcher._standbys) == 1


async def test_standbys_end_with_the_launcher(tmp_path: Path) -> None:
    async with launcher_in(tmp_path, program_in(tmp_path)) as launcher:
        await launcher.replenish()
        await launcher.replenish()
        assert len(await eventually(lambda: processes_of(tmp_path))) == 1
    assert processes_of(tmp_path) == []


async def test_an_engine_starts_from_a_standby_and_another_takes_its_place(tmp_path: Path) -> None:
    async with engine_in(tmp_path, standby_engines=1) as engine:
        [standby] = engine._launcher._standbys
        await engine.ensure_ready(within_seconds=30)
        assert engine.pid == standby.pid
        assert "Application startup complete" in engine.log.path.read_text()
        await engine._launcher.replenish()
        await eventually(lambda: len(processes_of(tmp_path)) == 2)


GATEWAY = """
import asyncio, sys
from pathlib import Path
from tests.engines.running import engine_in

async def main(folder):
    async with engine_in(folder, standby_engines=1):
        print("running", flush=True)
        await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("is_importing", [True, False])
def test_a_standby_does_not_outlive_a_killed_gateway(tmp_path: Path, is_importing: Any) -> None:
    argv = [sys.executable, "-c", GATEWAY, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout
        assert gateway.stdout.readline() == "running\n"
        standby_log = tmp_path / "engines" / "standby.log"
        until(lambda: is_importing or "standing by" in standby_log.read_text())
        gateway.kill()
    until(lambda: not processes_of(tmp_path))
