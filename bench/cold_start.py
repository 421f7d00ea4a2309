"""`python -m bench.cold_start`: from nothing to the first token, of vLLM as it comes and of `POST /warmup` on Loam."""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from app.catalog.load import load_catalog
from app.catalog.resolve import choose_gpu
from app.devices.inventory import as_choices, find_devices
from app.engines.command import Command, engine_command
from app.settings import ROOT, Settings
from bench.machine import SCRATCH, facts
from bench.processes import CannotStart, free_port, is_alive, last_words, running, tree_of, until_answered
from bench.relay.sides import new_key
from bench.report import NOTHING
from bench.show import out, show, telling, write
from bench.summary import Summary

MODEL = "loam/demo"
TRAINING = ROOT / "demo" / "train.jsonl"
RESULTS = Path(__file__).parent / "results" / "cold_start.md"
BARE, LOAM, NO_STANDBY = "bare vLLM", "loam", "loam, no standby"
WITHIN_SECONDS = 300
POLL_SECONDS = 0.02
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "What is Loam?"}], "stream": True, "temperature": 0}
HEAD = """\
# From nothing to the first token

The demo model on vLLM: a start of vLLM's own server until the first token of its first answer, and `POST /warmup` on a
running gateway until the first token through it, with a standby ready and without one; {rounds} rounds, in turns.
A fine-tune's first token is counted from the poll that first says `succeeded`, its base being warm. Memory is what each
engine's processes hold, with what they share counted once, and what the standby holds while it waits.\
"""
Runs = dict[tuple[str, str], list[float]]


@dataclass
class Gateway:
    """A running `loam up`, and its engines' folder."""

    http: httpx.AsyncClient
    pid: int
    folder: Path
    log: Path

    @property
    def engines(self) -> Path:
        return self.folder / "engines"

    async def until_cold(self, *, has_standby: bool) -> None:
        await until(lambda: not list(self.engines.glob("*.sock")), self.log)
        standby = self.engines / "standby.log"
        if has_standby:
            await until(lambda: standby.exists() and "standing by" in standby.read_text(), self.log)


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often each is started.")] = 3,
    jobs: Annotated[int, typer.Option(min=0, help="How many fine-tunes are made.")] = 3,
) -> None:
    """Written to bench/results/cold_start.md; the last line is Loam's seconds over those of bare vLLM."""
    try:
        runs = asyncio.run(_run(rounds, jobs))
    except CannotStart as error:
        out.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from error
    sides, told = [BARE, LOAM, NO_STANDBY], facts()
    headings = ["what", "figure", *sides]
    show(headings, lines(runs, sides, lambda of: of.with_spread), told)
    write(RESULTS, HEAD.format(rounds=rounds), headings, lines(runs, sides, lambda of: of.with_range), told)
    out.print(f"{ratio(runs):.3f}")


def lines(runs: Runs, sides: list[str], tell: Callable[[Summary], str]) -> list[list[str]]:
    figures = list(dict.fromkeys(figure for figure, _ in runs))
    found = []
    for figure in figures:
        summaries = [Summary.of(runs.get((figure, side), [])) for side in sides]
        found.append([*figure.split(", ", 1), *(tell(summary) if summary else NOTHING for summary in summaries)])
    return found


def ratio(runs: Runs) -> float:
    """Loam's median over that of bare vLLM."""
    loam, bare = (Summary.of(runs["cold start, seconds", side]) for side in (LOAM, BARE))
    assert loam
    assert bare
    return loam.median / bare.median


async def _run(rounds: int, jobs: int) -> Runs:
    runs: Runs = {}
    with tempfile.TemporaryDirectory(prefix="loam-bench-", dir=SCRATCH) as name, telling(3 * rounds + jobs) as tell:
        folder = Path(name)
        async with _gateway(folder / "one", standbys=1) as one, _gateway(folder / "none", standbys=0) as none:
            starts: dict[str, Callable[[], Awaitable[dict[str, float]]]] = {
                BARE: lambda: _bare(folder),
                LOAM: lambda: _warmed(one, has_standby=True),
                NO_STANDBY: lambda: _warmed(none, has_standby=False),
            }
            for number in range(1, rounds + 1):
                for side, start in starts.items():
                    tell(f"round {number}/{rounds} · {side}")
                    for figure, value in (await start()).items():
                        runs.setdefault((figure, side), []).append(value)
        async with _gateway(folder / "jobs", standbys=0, idle_seconds=600) as gateway:
            for number in range(1, jobs + 1):
                tell(f"fine-tune {number}/{jobs}")
                seconds = await _first_token_of_a_fine_tune(gateway)
                runs.setdefault(("fine-tune, ms to the first token", LOAM), []).append(1000 * seconds)
    return runs


async def _bare(folder: Path) -> dict[str, float]:
    socket, log = folder / "bare.sock", folder / "bare.log"
    socket.unlink(missing_ok=True)
    command = _command(socket)
    argv = [str(command.program.python), "-m", command.program.module, *command.arguments]
    began = time.monotonic()
    async with running(argv, log, {"HF_HUB_OFFLINE": "1", **command.program.env, **command.env}) as pid:
        transport = httpx.AsyncHTTPTransport(uds=str(socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=WITHIN_SECONDS) as http:
            while not await _is_healthy(http):
                if not is_alive(pid) or time.monotonic() > began + WITHIN_SECONDS:
                    raise CannotStart(f"vLLM does not start: {last_words(log)}")
                await asyncio.sleep(POLL_SECONDS)
            await _first_token(http, MODEL)
        return {"cold start, seconds": time.monotonic() - began, "memory, engine MiB": _mib(pid)}


def _command(socket: Path) -> Command:
    settings = Settings()
    catalog = load_catalog(settings.catalog)
    spec = next(model for model in catalog.models if model.id == MODEL)
    devices = find_devices(settings, catalog)
    gpu = choose_gpu(spec, None, as_choices(devices), fallback=True)
    return engine_command(settings, spec, gpu, devices[: gpu.count], socket)


async def _is_healthy(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/health")).status_code == 200
    except httpx.TransportError:
        return False


async def _warmed(gateway: Gateway, *, has_standby: bool) -> dict[str, float]:
    await gateway.until_cold(has_standby=has_standby)
    children = set(tree_of(gateway.pid)[1:])
    waiting = {"memory, standby MiB": max(_mib(pid) for pid in children)} if has_standby else {}
    began = time.monotonic()
    (await gateway.http.post(f"/api/v1/warmup/{MODEL}")).raise_for_status()
    await _first_token(gateway.http, MODEL)
    seconds = time.monotonic() - began
    record = json.loads(next(gateway.engines.glob("*.json")).read_bytes())
    return {"cold start, seconds": seconds, "memory, engine MiB": _mib(record["pgid"]), **waiting}


async def _first_token(http: httpx.AsyncClient, model: str) -> None:
    async with http.stream("POST", "/v1/chat/completions", json={**CHAT, "model": model}) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {") and _has_text(json.loads(line.removeprefix("data: "))):
                return
        raise CannotStart(f"no token, but {answer.status_code}")


def _has_text(chunk: dict[str, Any]) -> bool:
    return any(choice["delta"].get("content") for choice in chunk.get("choices", []))


async def _first_token_of_a_fine_tune(gateway: Gateway) -> float:
    """Seconds from the answer that first says that it has succeeded."""
    await _first_token(gateway.http, MODEL)
    uploaded = await gateway.http.post("/v1/files", files={"file": TRAINING.open("rb")}, data={"purpose": "fine-tune"})
    body = {"model": MODEL, "training_file": uploaded.json()["id"], "hyperparameters": {"max_steps": 5}}
    job = (await gateway.http.post("/v1/fine_tuning/jobs", json=body)).json()
    while job.get("status") != "succeeded":
        if job.get("status") in ("failed", "cancelled", None):
            raise CannotStart(f"the fine-tune did not succeed: {job}")
        await asyncio.sleep(POLL_SECONDS)
        job = (await gateway.http.get(f"/v1/fine_tuning/jobs/{job['id']}")).json()
    began = time.monotonic()
    await _first_token(gateway.http, job["fine_tuned_model"])
    return time.monotonic() - began


def _mib(pid: int) -> float:
    """Of a process and all below it; pages that several of them map are shared out among them."""
    kib = 0
    for each in tree_of(pid):
        rollup = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        kib += sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    return kib / 1024


async def until(look: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + WITHIN_SECONDS
    while not look():
        if time.monotonic() > deadline:
            raise CannotStart(f"it does not come to rest: {last_words(log)}")
        await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def _gateway(folder: Path, *, standbys: int, idle_seconds: float = 1.0) -> AsyncIterator[Gateway]:
    port, log = free_port(), folder.with_suffix(".log")
    env = _environment(folder, standbys, idle_seconds)
    async with running([sys.executable, "-m", "app", "up", "--port", str(port)], log, env) as pid:
        url = f"http://127.0.0.1:{port}"
        await until_answered(f"{url}/health", pid, log)
        headers = {"Authorization": f"Bearer {new_key(env)}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=WITHIN_SECONDS) as http:
            yield Gateway(http, pid, folder, log)


def _environment(folder: Path, standbys: int, idle_seconds: float) -> dict[str, str]:
    return {
        "PYTHONPATH": str(ROOT),
        "LOAM_DATA_DIR": str(folder),
        "LOAM_GPU_FALLBACK": "true",
        "LOAM_STANDBY_ENGINES": str(standbys),
        "LOAM_ENGINE_IDLE_SECONDS": str(idle_seconds),
        "LOAM_LEASE_SECONDS": "2",  # engines are looked after four times as often
        "HF_HUB_OFFLINE": "1",
    }


if __name__ == "__main__":
    typer.run(main)
