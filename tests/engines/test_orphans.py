"""What a killed gateway left is ended by the next one, and nothing else."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from app.engines.orphans import ProcessRecord, sweep_orphans
from tests.engines.running import engine_in, processes_of, python_with_a_child
from tests.eventually import eventually, until

GATEWAY = """
import asyncio, sys
from pathlib import Path
from tests.engines.running import engine_in

async def main(folder):
    async with engine_in(folder, engine_python=folder / "python") as engine:
        await engine.ensure_ready(within_seconds=30)
        print(engine.id, flush=True)
        await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1])))
"""


def run_a_gateway_and_kill_it(folder: Path) -> str:
    """Who held the devices of its engine."""
    argv = [sys.executable, "-c", GATEWAY, str(folder)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout
        holder = next(line.strip() for line in gateway.stdout if line.startswith("engine_"))
        gateway.kill()
    return holder


def record_of(pid: int, *, started_at: float, host: str | None = None) -> ProcessRecord:
    """Of an engine whose gateway is gone."""
    here = socket.gethostname()
    return ProcessRecord(host or here, "engine_1", pid, started_at, gateway_pid=pid, gateway_started_at=1.0)


def listed(folder: Path) -> list[Path]:
    return list(folder.iterdir())


@pytest.mark.anyio
async def test_a_killed_gateways_engines_are_ended_and_only_those(tmp_path: Path) -> None:
    dead, alive = tmp_path / "dead", tmp_path / "alive"
    for folder in (dead, alive):
        folder.mkdir()
    python_with_a_child(dead)
    holder = await asyncio.to_thread(run_a_gateway_and_kill_it, dead)
    async with engine_in(alive) as engine:
        await engine.ensure_ready(within_seconds=30)
        assert processes_of(dead)  # the leader goes with its gateway, the leader's own children do not
        assert sweep_orphans(dead / "engines") == [holder]
        await eventually(lambda: not processes_of(dead))
        assert [path.suffix for path in listed(dead / "engines")] == [".log"]
        assert sweep_orphans(alive / "engines") == []
        assert engine.is_ready
        assert engine.socket.exists()


def test_numbers_that_were_used_again_are_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as other:
        record = record_of(other.pid, started_at=1.0)
        record.write(tmp_path / "x.json")
        assert sweep_orphans(tmp_path) == ["engine_1"]
        assert other.poll() is None
        assert listed(tmp_path) == []
        other.kill()


def test_what_runs_on_another_host_is_left_alone(tmp_path: Path) -> None:
    record_of(1, started_at=1.0, host="another").write(tmp_path / "x.json")
    (tmp_path / "x.sock").touch()
    assert sweep_orphans(tmp_path) == []
    assert len(listed(tmp_path)) == 2


def test_a_record_that_its_own_gateway_removes_meanwhile_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.json").symlink_to(tmp_path / "removed")
    assert sweep_orphans(tmp_path) == []


def test_a_record_that_a_crash_cut_off_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b'{"holder": "eng')
    (tmp_path / "x.sock").touch()
    assert sweep_orphans(tmp_path) == []
    assert listed(tmp_path) == []


def test_the_group_of_a_dead_leader_that_nobody_collected_is_ended(tmp_path: Path) -> None:
    script = f"sleep 60 & echo $! > {tmp_path}/pid"
    with subprocess.Popen(["sh", "-c", script], start_new_session=True) as leader:
        until((tmp_path / "pid").exists)
        until(lambda: psutil.Process(leader.pid).status() == psutil.STATUS_ZOMBIE)
        born_at = psutil.Process(leader.pid).create_time()
        (tmp_path / "engines").mkdir()
        record = record_of(leader.pid, started_at=born_at)
        record.write(tmp_path / "engines" / "x.json")
        child = psutil.Process(int((tmp_path / "pid").read_text()))
        assert sweep_orphans(tmp_path / "engines") == ["engine_1"]
        until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
