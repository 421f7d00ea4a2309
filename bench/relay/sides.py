"""What is compared: the engine asked straight, Loam, and the peers; each as its makers would have it run."""

import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from app.settings import ROOT
from bench.compiler import compiled
from bench.cores import Cores
from bench.load import Target
from bench.processes import CannotStart, free_port, last_words, running, until_answered

MODEL = "bench/model"
ORG = "bench"
CATALOG = f"""\
gpus:
  CPU: {{memory_gib: 0, dollars_per_hour: 0.10}}
models:
  - id: {MODEL}
    weights: {MODEL}
    parameters_billions: 1
    context_length: 131072
    gpus: [CPU]
    dollars_per_million_tokens: {{prompt: 0.02, cached_prompt: 0.01, completion: 0.04, training: 0.10}}
"""


@dataclass(frozen=True)
class Place:
    """Where a side is started: its own empty folder, the cores, and the engine on TCP for who cannot do better."""

    folder: Path
    cores: Cores
    engine_port: int

    def within(self, name: str) -> "Place":
        """The same, in a folder of its own."""
        folder = self.folder / name
        folder.mkdir()
        return replace(self, folder=folder)


Side = Callable[[Place], AbstractAsyncContextManager[Target]]


@asynccontextmanager
async def engine(folder: Path) -> AsyncIterator[int]:
    """A fake engine on TCP; its port."""
    port, log = free_port(), folder / "engine.log"
    async with running([str(compiled("fakeup")), "--model", MODEL, "--port", str(port)], log) as pid:
        await until_answered(f"http://127.0.0.1:{port}/health", pid, log)
        yield port


@asynccontextmanager
async def straight(place: Place) -> AsyncIterator[Target]:
    yield Target(MODEL, place.engine_port)


@asynccontextmanager
async def loam(place: Place) -> AsyncIterator[Target]:
    """`loam serve` as it ships: keys, credit, every answer in the ledger before it ends. The engine is its own."""
    port, log, env = free_port(), place.folder / "server.log", loam_environment(place)
    argv = [sys.executable, "-m", "app", "serve", "--port", str(port)]
    async with running(place.cores.for_gateway(argv), log, env) as pid:
        url = f"http://127.0.0.1:{port}"
        await until_answered(f"{url}/health", pid, log)
        target = Target(MODEL, port, headers=(f"Authorization: Bearer {new_key(env)}",), pids=(pid,))
        await until_asked(url, target, log)
        yield target


def loam_environment(place: Place) -> dict[str, str]:
    catalog = place.folder / "models.yaml"
    catalog.write_text(CATALOG)
    launcher = Path(__file__).with_name("fake_engine.py")
    told = [sys.executable, str(launcher), str(compiled("fakeup")), ",".join(map(str, place.cores.others))]
    return {
        "PYTHONPATH": str(ROOT),
        "LOAM_DATA_DIR": str(place.folder / "data"),
        "LOAM_CATALOG": str(catalog),
        "LOAM_ENGINE_PYTHON": str(program(place.folder / "engine-python", told)),
        "LOAM_DEVICES": '["CPU:1"]',
        "LOAM_STANDBY_ENGINES": "0",
    }


def program(path: Path, argv: Sequence[str]) -> Path:
    """`path`, which runs `argv` with what it is given itself."""
    path.write_text(f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n')
    path.chmod(0o755)
    return path


def new_key(env: dict[str, str]) -> str:
    """Of an organisation that cannot run out of credit."""
    _loam(env, "orgs", "create", ORG)
    _loam(env, "credit", "add", "--org", ORG, "1000000")
    return _loam(env, "keys", "create", "--org", ORG).strip()


def _loam(env: dict[str, str], *arguments: str) -> str:
    argv = ["env", *(f"{name}={value}" for name, value in env.items()), sys.executable, "-m", "app", *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


async def until_asked(url: str, target: Target, log: Path) -> None:
    """One answer, for which the engine is started. Raises CannotStart."""
    body = {"model": target.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    headers = dict(line.split(": ", 1) for line in target.headers)
    async with httpx.AsyncClient(timeout=600) as client:
        response = await client.post(f"{url}/v1/chat/completions", json=body, headers=headers)
    if response.status_code != 200:
        raise CannotStart(f"it answers {response.status_code}: {response.text[:200]} ({last_words(log)})")
