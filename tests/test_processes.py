"""Children: in groups of their own, ended as groups, and not outliving whoever started them."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import psutil
import pytest

from app.processes import end_group, signal_group, spawn
from tests.eventually import eventually

pytestmark = pytest.mark.anyio

PARENT = """
import asyncio, signal, sys
from app.processes import spawn

async def main():
    child = await spawn(["sleep", "60"], orphan_signal=signal.Signals(int(sys.argv[1])))
    print(child.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_child_is_ended_when_its_parent_is_killed(number: signal.Signals) -> None:
    child = await asyncio.to_thread(run_a_parent_and_kill_it, number)
    await eventually(lambda: is_gone(child))


def run_a_parent_and_kill_it(number: signal.Signals) -> int:
    """The child's id."""
    argv = [sys.executable, "-c", PARENT, str(int(number))]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        parent.kill()
    return child


async def test_a_child_leads_a_group_of_its_own_and_sees_what_it_is_given(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        child = await spawn(
            ["sh", "-c", "echo $GIVEN $HOME; echo $$ >&2; read x || echo no input"], log=log, env={"GIVEN": "here"}
        )
    assert await child.wait() == 0
    assert (tmp_path / "log").read_text() == f"here {os.environ['HOME']}\n{child.pid}\nno input\n"


async def test_a_group_is_ended_whole_although_it_ignores_sigterm(tmp_path: Path) -> None:
    script = f"trap '' TERM; sleep 60 & echo $! > {tmp_path}/pid; echo > {tmp_path}/ready; while :; do wait; done"
    child = await spawn(["sh", "-c", script])
    await eventually((tmp_path / "ready").exists)
    with anyio.fail_after(5):
        await end_group(child, grace_seconds=0.2)
    assert child.returncode == -signal.SIGKILL
    await eventually(lambda: is_gone(int((tmp_path / "pid").read_text())))


async def test_a_dead_leaders_children_are_ended_too(tmp_path: Path) -> None:
    child = await spawn(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid"])
    await child.wait()
    orphan = int((tmp_path / "pid").read_text())
    assert not is_gone(orphan)
    await end_group(child, grace_seconds=5)
    await eventually(lambda: is_gone(orphan))
    await end_group(child, grace_seconds=5)


async def test_an_ending_that_is_cancelled_ends_the_group_all_the_same(tmp_path: Path) -> None:
    child = await spawn(["sh", "-c", f"trap '' TERM; echo > {tmp_path}/ready; while :; do sleep 1; done"])
    await eventually((tmp_path / "ready").exists)
    ending = asyncio.create_task(end_group(child, grace_seconds=60))
    await asyncio.sleep(0)
    ending.cancel()
    await asyncio.wait([ending])
    assert await child.wait() == -signal.SIGKILL


async def test_who_is_being_cancelled_sees_the_end_too(tmp_path: Path) -> None:
    child = await spawn(["sh", "-c", f"trap '' TERM; echo > {tmp_path}/ready; while :; do sleep 1; done"])
    await eventually((tmp_path / "ready").exists)

    async def keep() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await end_group(child, grace_seconds=0.1)
            assert child.returncode == -signal.SIGKILL

    keeping = asyncio.create_task(keep())
    await asyncio.sleep(0)
    keeping.cancel()
    await asyncio.wait([keeping])
    assert keeping.cancelled()
    assert child.returncode == -signal.SIGKILL


def test_a_group_that_is_gone_hears_nothing() -> None:
    with subprocess.Popen(["true"], start_new_session=True) as process:
        process.wait()
    assert not signal_group(process.pid, signal.SIGTERM)
