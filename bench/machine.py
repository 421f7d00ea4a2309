"""Where and with what it was measured."""

import os
import platform
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

from app.settings import ROOT

# Not /tmp, which may be memory, where a commit costs nothing.
SCRATCH = Path("/var/tmp")
SYNCS = 50


def facts() -> dict[str, str]:
    cpu = cpu_model(Path("/proc/cpuinfo").read_text())
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{cpu}, {os.cpu_count()} cores, Linux {platform.release()}",
        "disk": f"an fsync takes {sync_seconds() * 1e6:,.0f} µs",
        "versions": f"Loam {_revision()}, Python {platform.python_version()}, uvicorn {version('uvicorn')}",
    }


def cpu_model(cpuinfo: str) -> str:
    names = (line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name"))
    return next(names, platform.machine())


def sync_seconds() -> float:
    """The median for 4 KiB more in a file."""
    with tempfile.TemporaryFile(dir=SCRATCH, buffering=0) as file:
        return median(_synced(file.fileno()) for _ in range(SYNCS))


def _synced(file: int) -> float:
    began = time.perf_counter()
    os.write(file, bytes(4096))
    os.fsync(file)
    return time.perf_counter() - began


def _revision() -> str:
    argv = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    told = subprocess.run(argv, capture_output=True, text=True, check=False)
    return told.stdout.strip() or version("loam")
