"""Records of engine processes on disk, so that the next gateway finds those whose gateway was killed."""

import os
import signal
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
import psutil
import structlog

from app.processes import signal_group

log = structlog.get_logger()

# What an engine has in the folder, under one name: its socket, that of its forks, and last its record.
LEFTOVERS = (".sock", ".fork", ".json")


@dataclass(frozen=True)
class ProcessRecord:
    """An engine's process group, and the holder of its device leases."""

    host: str
    holder: str
    pgid: int
    started_at: float
    gateway_pid: int
    gateway_started_at: float

    @classmethod
    def of(cls, holder: str, pid: int) -> "ProcessRecord":
        host, gateway = socket.gethostname(), psutil.Process()
        return cls(host, holder, pid, psutil.Process(pid).create_time(), gateway.pid, gateway.create_time())

    def write(self, path: Path) -> None:
        """Whole or not at all: a torn record would lose the group."""
        part = path.with_suffix(".part")
        try:
            part.write_bytes(orjson.dumps(asdict(self)))
            part.rename(path)
        except OSError:  # a full disk has no use for half of it
            part.unlink(missing_ok=True)
            raise


def sweep_orphans(folder: Path) -> list[str]:
    """End what dead gateways of this host left running, remove its sockets; returns the holders of its device leases.

    The folder may be shared: what other hosts run cannot be seen from here, and their gateways sweep themselves.
    """
    holders = []
    for path in folder.glob("*.json"):
        record = _read(path)
        if record and (record.host != socket.gethostname() or _is_gateway_alive(record)):
            continue
        if record:
            _end_orphan(record)
            holders.append(record.holder)
        for suffix in LEFTOVERS:
            path.with_suffix(suffix).unlink(missing_ok=True)
    return holders


def kill_own(folder: Path) -> None:
    """At once, when this gateway must not wait for anything; their records are for the next gateway's sweep."""
    for record in filter(None, map(_read, folder.glob("*.json"))):
        if record.host == socket.gethostname() and record.gateway_pid == os.getpid():
            signal_group(record.pgid, signal.SIGKILL)


def _read(path: Path) -> ProcessRecord | None:
    try:
        return ProcessRecord(**orjson.loads(path.read_bytes()))
    except (orjson.JSONDecodeError, TypeError, FileNotFoundError):  # cut off by a crash, or just removed by its gateway
        return None


def _is_gateway_alive(record: ProcessRecord) -> bool:
    pid = record.gateway_pid
    try:
        return _is_same(pid, record.gateway_started_at) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_same(pid: int, started_at: float) -> bool:
    """Also when it is dead and nobody has collected it: the members of its group may live on."""
    try:
        return abs(psutil.Process(pid).create_time() - started_at) < 1
    except psutil.NoSuchProcess:
        return False


def _end_orphan(record: ProcessRecord) -> None:
    """Kill the group, but only while it is still the one we started: its numbers may have been used again."""
    members = [p for p in psutil.process_iter() if _group_of(p) == record.pgid]
    leader = next((p for p in members if p.pid == record.pgid), None)
    if not members or (leader and not _is_same(leader.pid, record.started_at)):
        return
    log.warning("ending an engine whose gateway is gone", pgid=record.pgid, processes=len(members))
    signal_group(record.pgid, signal.SIGKILL)
    psutil.wait_procs(members, timeout=10)


def _group_of(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except (ProcessLookupError, PermissionError):
        return None
