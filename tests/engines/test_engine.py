"""An engine's life: one start for all who wait, a clean end, and a new start after each."""

import asyncio
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from app.engines.engine import Engine, State
from app.engines.failures import Crashed, StartFailed
from app.engines.progress import StillStarting
from app.errors import Unavailable
from app.files.storage import Storage
from tests.engines.running import engine_in, processes_of, python_with_a_child, write_adapter
from tests.eventually import eventually

pytestmark = pytest.mark.anyio


def kill(engine: Engine, number: signal.Signals = signal.SIGKILL) -> None:
    assert engine.pid
    os.kill(engine.pid, number)


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in (folder / "engines").iterdir() if path.suffix in (".sock", ".json", ".part")]


async def ready(engine: Engine) -> None:
    await engine.ensure_ready(within_seconds=30)


async def test_one_start_serves_all_who_wait(tmp_path: Path) -> None:
    async with engine_in(tmp_path) as engine:
        await asyncio.gather(*(ready(engine) for _ in range(10)))
        assert (engine.starts, len(processes_of(tmp_path))) == (1, 1)
        assert await engine.client.answers("test/a", within_seconds=10)


async def test_a_start_goes_on_when_those_who_wait_leave(tmp_path: Path) -> None:
    async with engine_in(tmp_path) as engine:
        waiting = asyncio.create_task(ready(engine))
        await eventually(lambda: engine.pid)
        waiting.cancel()
        await asyncio.wait([waiting])
        await eventually(lambda: engine.is_ready)
        assert engine.starts == 1


async def test_who_cannot_wait_longer_is_told_to_come_again(tmp_path: Path) -> None:
    async with engine_in(tmp_path, simulate_start_seconds=0.5, cold_start_seconds=0.1) as engine:
        engine.ensure_starting()
        await eventually(lambda: engine.progress.stage == "loading_weights")
        with pytest.raises(StillStarting) as told:
            await engine.ensure_ready(within_seconds=0)
        assert told.value.headers["Retry-After"]
        help_ = dict(told.value.troubleshooting or {})
        assert 0 < help_.pop("elapsed_seconds") < 30
        assert help_ == {"stage": "loading_weights", "progress": 0.2, "estimated_seconds": None}
        await ready(engine)
        assert engine.starts == 1
        assert engine.estimated_seconds


async def test_a_failed_start_shows_its_log_and_is_not_repeated_at_once(tmp_path: Path) -> None:
    async with engine_in(tmp_path, simulate_faults=["start_fails"]) as engine:
        failures = await asyncio.gather(*(ready(engine) for _ in range(3)), return_exceptions=True)
        assert [type(failure) for failure in failures] == [StartFailed] * 3
        failure = failures[0]
        assert isinstance(failure, StartFailed)
        assert any("CUDA out of memory" in line for line in (failure.troubleshooting or {})["log"])
        assert failure.headers["Retry-After"] == "2"
        assert (engine.state, processes_of(tmp_path), leftovers(tmp_path)) == (State.STOPPED, [], [])
        log_written_at = engine.log.path.stat().st_mtime_ns
        with pytest.raises(StartFailed):
            await ready(engine)
        assert engine.log.path.stat().st_mtime_ns == log_written_at
        engine._settings.simulate_faults.clear()
        engine._failures.retry_at = 0.0
        await ready(engine)
        assert engine.failure is None


async def test_a_start_that_hangs_is_ended(tmp_path: Path) -> None:
    async with engine_in(tmp_path, simulate_faults=["start_hangs"], engine_start_seconds=1.0) as engine:
        with pytest.raises(StartFailed, match="not healthy in time"):
            await ready(engine)
        assert (processes_of(tmp_path), leftovers(tmp_path)) == ([], [])


async def test_a_python_that_is_not_there_is_a_failed_start(tmp_path: Path) -> None:
    async with engine_in(tmp_path, engine_python=tmp_path / "nowhere") as engine:
        with pytest.raises(StartFailed):
            await ready(engine)


async def test_a_crash_is_noticed_and_the_next_request_starts_it_again(tmp_path: Path) -> None:
    async with engine_in(tmp_path) as engine:
        await ready(engine)
        kill(engine)
        await eventually(lambda: engine.state is State.STOPPED)
        assert leftovers(tmp_path) == []
        with pytest.raises(Unavailable):
            _ = engine.client
        await ready(engine)
        assert engine.starts == 2


async def test_a_crash_is_told_without_its_log_and_one_after_another_is_not_started_at_once(tmp_path: Path) -> None:
    async with engine_in(tmp_path) as engine:
        for n_crashes in (1, 2):
            await ready(engine)
            kill(engine)
            await eventually(lambda: engine.state is State.STOPPED)
            assert isinstance(engine.failure, Crashed)
            assert "SIGKILL" in engine.failure.message
            assert engine.failure.troubleshooting is None, "others' requests may be in it"
            assert engine.starts == n_crashes
        with pytest.raises(Crashed):
            await ready(engine)


async def test_a_folder_that_cannot_be_written_is_a_failed_start_with_its_reason(tmp_path: Path) -> None:
    async with engine_in(tmp_path) as engine:
        (tmp_path / "engines").rmdir()
        with pytest.raises(StartFailed, match="No such file"):
            await ready(engine)
        assert (engine.state, processes_of(tmp_path)) == (State.STOPPED, [])
        (tmp_path / "engines").mkdir()
        engine._failures.retry_at = 0.0
        await ready(engine)


async def test_silence_begins_with_the_first_who_waits(tmp_path: Path) -> None:
    async with engine_in(tmp_path) as engine:
        await ready(engine)
        engine.silence.last_heard = engine.last_used = time.monotonic() - 3600
        engine.in_flight += 1
        began = time.monotonic()
        assert not engine.is_silent(began + 9, 10)
        for _ in range(3):  # they give up without having had a byte, and come again
            engine.in_flight -= 1
            engine.last_used = time.monotonic()
            engine.in_flight += 1
        assert engine.is_silent(began + 10.1, 10)
        engine.heard()
        engine.in_flight -= 1
        engine.last_used = time.monotonic()
        engine.in_flight += 1
        assert not engine.is_silent(time.monotonic() + 9.9, 10)


async def test_one_that_hangs_is_known_at_the_limit_and_killed_without_a_grace(tmp_path: Path) -> None:
    async with engine_in(tmp_path, engine_stop_seconds=60) as engine:
        await ready(engine)
        engine.in_flight += 1
        kill(engine, signal.SIGSTOP)
        began = time.monotonic()
        while not await engine.hangs(2.0):
            await asyncio.sleep(0.1)
        assert 2.0 <= time.monotonic() - began < 3.0
        with anyio.fail_after(5):
            await engine.kill()
        assert (engine.state, processes_of(tmp_path)) == (State.STOPPED, [])
        assert isinstance(engine.failure, Crashed)


async def test_a_stop_ends_the_whole_group(tmp_path: Path) -> None:
    async with engine_in(tmp_path, engine_python=python_with_a_child(tmp_path)) as engine:
        await ready(engine)
        assert len(processes_of(tmp_path)) == 2
        assert len(leftovers(tmp_path)) == 2
        await asyncio.gather(engine.stop(), engine.stop())
        await eventually(lambda: not processes_of(tmp_path))
        assert (engine.state, leftovers(tmp_path)) == (State.STOPPED, [])
        await engine.stop()


async def test_a_crash_of_the_server_ends_its_children_too(tmp_path: Path) -> None:
    async with engine_in(tmp_path, engine_python=python_with_a_child(tmp_path)) as engine:
        await ready(engine)
        kill(engine)
        await eventually(lambda: not processes_of(tmp_path))


async def test_who_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    async with engine_in(tmp_path, simulate_faults=["ignore_sigterm"], engine_stop_seconds=0.2) as engine:
        await ready(engine)
        with anyio.fail_after(5):
            await engine.stop()
        assert processes_of(tmp_path) == []


async def test_an_engine_that_is_suspended_can_be_stopped(tmp_path: Path) -> None:
    async with engine_in(tmp_path, engine_stop_seconds=0.2) as engine:
        await ready(engine)
        kill(engine, signal.SIGSTOP)
        with anyio.fail_after(5):
            await engine.stop()
        assert processes_of(tmp_path) == []


async def test_a_stop_in_the_middle_of_a_start_leaves_nothing(tmp_path: Path) -> None:
    async with engine_in(tmp_path, simulate_start_seconds=60) as engine:
        waiting = asyncio.create_task(ready(engine))
        await eventually(engine.socket.exists)
        await engine.stop()
        with pytest.raises(StillStarting):
            await waiting
        assert (engine.state, processes_of(tmp_path), leftovers(tmp_path)) == (State.STOPPED, [], [])


@pytest.mark.parametrize("n_stops", [1, 2])
async def test_stops_while_a_start_is_being_given_up_leave_nothing(tmp_path: Path, n_stops: int) -> None:
    """The first stop, or the failed start, waits for a process that ignores SIGTERM; others come meanwhile."""
    faults = ["ignore_sigterm", "start_hangs"]
    options: dict[str, Any] = {"simulate_faults": faults, "engine_start_seconds": 1.0 if n_stops == 1 else 60.0}
    async with engine_in(tmp_path, engine_stop_seconds=0.5, **options) as engine:
        waiting = asyncio.create_task(ready(engine))
        await eventually(engine.socket.exists)
        if n_stops == 1:
            await eventually(lambda: engine.failure)
        stops = []
        for _ in range(n_stops):
            stops.append(asyncio.create_task(engine.stop()))
            await asyncio.sleep(0.1)
        await asyncio.gather(waiting, *stops, return_exceptions=True)
        assert (engine.state, processes_of(tmp_path), leftovers(tmp_path)) == (State.STOPPED, [], [])


async def test_who_comes_while_it_stops_gets_the_next_start(tmp_path: Path) -> None:
    async with engine_in(tmp_path, simulate_faults=["ignore_sigterm"], engine_stop_seconds=0.3) as engine:
        await ready(engine)
        stopping = asyncio.create_task(engine.stop())
        await asyncio.sleep(0)
        await ready(engine)
        await stopping
        assert (engine.starts, engine.is_ready) == (2, True)


async def test_the_logs_of_earlier_starts_are_kept(tmp_path: Path) -> None:
    async with engine_in(tmp_path, simulate_faults=["start_fails"]) as engine:
        for _ in range(4):
            engine._failures.retry_at = 0.0
            with pytest.raises(StartFailed):
                await ready(engine)
        kept = sorted(path.name for path in engine.log.path.parent.glob("*.log*"))
        assert kept == [engine.log.path.name, f"{engine.log.path.name}.1", f"{engine.log.path.name}.2"]


async def test_an_engine_starts_and_serves_though_its_log_is_on_a_full_disk(tmp_path: Path) -> None:
    async with engine_in(tmp_path, engine_python=tmp_path / "python") as engine:
        on_a_full_disk = f'ln -sf /dev/full "{engine.log.path}"\nexec {sys.executable} "$@" > /dev/full 2>&1\n'
        (tmp_path / "python").write_text(f"#!/bin/sh\n{on_a_full_disk}")
        (tmp_path / "python").chmod(0o755)
        await ready(engine)
        assert await engine.client.answers("test/a", within_seconds=10)


async def test_a_disk_that_fills_up_while_an_engine_runs_takes_its_log_and_nothing_else(tmp_path: Path) -> None:
    async with engine_in(tmp_path) as engine:
        await ready(engine)
        assert engine.pid
        resource.prlimit(engine.pid, resource.RLIMIT_FSIZE, (0, 0))  # every write to a file fails from now on
        said = engine.log.path.read_text()
        adapter = write_adapter(Storage(tmp_path))
        folder = Storage(tmp_path).adapter(adapter.job_id, adapter.folder)
        assert await engine.client.load_adapter("x", folder) is None  # of which it would say something
        assert engine.log.path.read_text() == said
        assert await engine.client.answers("x", within_seconds=10)
        await engine.stop()
        assert engine.state is State.STOPPED


async def test_a_start_that_the_disk_has_no_room_for_fails_with_that_reason_and_leaves_nothing(tmp_path: Path) -> None:
    async with engine_in(tmp_path) as engine:
        engine.socket.with_suffix(".part").symlink_to("/dev/full")
        with pytest.raises(StartFailed, match="No space left on device"):
            await ready(engine)
        assert (engine.state, processes_of(tmp_path), leftovers(tmp_path)) == (State.STOPPED, [], [])
        engine._failures.retry_at = 0.0
        await ready(engine)  # there is room again
