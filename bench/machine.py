"""Where and with what it was measured."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from app.settings import ROOT
from bench.cores import Cores


def facts(cores: Cores) -> dict[str, str]:
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "CPU": cpu_model(Path("/proc/cpuinfo").read_text()),
        "cores": f"gateway on {cores.gateway}; engine and load on {', '.join(map(str, cores.others))}",
        "kernel": platform.release(),
        "Python": f"{platform.python_version()}, uvicorn {version('uvicorn')}, uvloop {version('uvloop')}",
        "Loam": _revision(),
    }


def cpu_model(cpuinfo: str) -> str:
    names = (line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name"))
    return next(names, platform.machine())


def _revision() -> str:
    argv = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    told = subprocess.run(argv, capture_output=True, text=True, check=False)
    return told.stdout.strip() or version("loam")
