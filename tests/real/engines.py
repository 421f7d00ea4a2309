"""A look at a server's engines from behind: their processes, and what they say of themselves on their own sockets."""

import re
from pathlib import Path

import httpx
import psutil

from tests.servers import Server

LEASE_SECONDS = 4


def engine_processes(server: Server) -> list[psutil.Process]:
    """Every process of every engine, the leaders first."""
    started = [p for p in psutil.Process(server.process.pid).children() if "vllm" in _command(p)]
    leaders = [process for process in started if process.children()]  # a standby has none yet
    return leaders + [child for leader in leaders for child in leader.children(recursive=True)]


def worker_process(server: Server) -> psutil.Process:
    children = psutil.Process(server.process.pid).children()
    return next(p for p in children if "workers.worker" in _command(p))


def _command(process: psutil.Process) -> str:
    """Nothing for one that has just ended."""
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def count_running(server: Server) -> int:
    """Requests that the engines work on or have queued."""
    return sum(_figures(server, "num_requests_(?:running|waiting)"))


def count_generated(server: Server) -> int:
    """Tokens that the engines have made since their start."""
    return sum(_figures(server, "generation_tokens_total"))


def _figures(server: Server, name: str) -> list[int]:
    sockets = (server.data_dir / "engines").glob("*.sock")
    metrics = "\n".join(map(_metrics, sockets))
    found = re.findall(rf"^vllm:{name}(?:{{[^}}]*}})? ([0-9.e+]+)", metrics, re.MULTILINE)
    assert found, f"the engine does not tell its {name}"
    return [int(float(number)) for number in found]


def _metrics(socket: Path) -> str:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://engine") as client:
        return client.get("/metrics").text
