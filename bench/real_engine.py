"""`python -m bench.real_engine`: through the gateway, beside straight to the very same vLLM over its socket."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from app.settings import ROOT
from bench.compiler import NoCompiler
from bench.figures import CPU_A_REQUEST, FIRST_CHUNK, Case, Figure
from bench.load import Asking, Run, Target
from bench.machine import SCRATCH, facts
from bench.processes import CannotStart, free_port, running, until_answered
from bench.relay.sides import new_key, until_asked
from bench.report import LOAM, STRAIGHT
from bench.rounds import Results, measure_all
from bench.show import out, publish, telling

MODEL = "loam/demo"
RESULTS = Path(__file__).parent / "results" / "engine.md"
CONNECTIONS = (1, 8, 32)
ASKING = Asking(connections=1, tokens=64, prompt_bytes=200, extra='"ignore_eos":true')
HEAD = """\
# What the gateway takes from a real engine

The demo model on vLLM, asked through Loam and straight over the engine's own socket, in turns in one run: the median of
{rounds} rounds of {seconds:g} s (least..most). Answers of 64 tokens. Requests/s are connections over the mean latency:
the engine ends many at once, so that counting them in so short a time would be right to a whole batch only.
Nothing is pinned: engine, gateway and load share the machine.\
"""


def rate(run: Run) -> float | None:
    return run.asking.connections * 1e6 / run.load.latency_us.mean if run.load.latency_us else None


def token_rate(run: Run) -> float | None:
    answers = rate(run)
    return None if answers is None else answers * run.asking.tokens


FIGURES = (Figure("requests/s", rate), Figure("tokens/s", token_rate), CPU_A_REQUEST)
CASES = [
    Case(f"{kind} answers, {n} at once", replace(ASKING, connections=n, stream=stream), (*FIGURES, *more))
    for kind, stream, more in (("whole", False, ()), ("streamed", True, FIRST_CHUNK))
    for n in CONNECTIONS
]


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often each side is measured.")] = 5,
    seconds: Annotated[float, typer.Option(min=1, help="How long each measurement takes.")] = 4.0,
) -> None:
    """Requests, tokens and time to the first chunk; written to bench/results/engine.md."""
    results = Results([STRAIGHT, LOAM], [STRAIGHT], CASES, rounds, seconds)
    try:
        asyncio.run(_run(results))
    except (NoCompiler, CannotStart) as error:
        out.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from error
    publish(results, facts(), HEAD, RESULTS)
    if results.wrong:
        raise typer.Exit(1)


async def _run(results: Results) -> None:
    with tempfile.TemporaryDirectory(prefix="loam-bench-", dir=SCRATCH) as folder:
        out.print("starting the gateway and its engine", style="dim")
        async with _gateway(Path(folder)) as target:
            socket = next((Path(folder) / "data" / "engines").glob("*.sock"))
            targets = {STRAIGHT: Target(MODEL, uds=socket), LOAM: target}
            with telling(results.rounds * len(CASES) * len(targets)) as tell:
                await measure_all(targets, results, tell)


@asynccontextmanager
async def _gateway(folder: Path) -> AsyncIterator[Target]:
    port, log, data = free_port(), folder / "server.log", folder / "data"
    env = {
        "PYTHONPATH": str(ROOT),
        "LOAM_DATA_DIR": str(data),
        "LOAM_GPU_FALLBACK": "true",
        "HF_HUB_OFFLINE": "1",
        "LOAM_STANDBY_ENGINES": "0",
    }
    async with running([sys.executable, "-m", "app", "serve", "--port", str(port)], log, env) as pid:
        url = f"http://127.0.0.1:{port}"
        await until_answered(f"{url}/health", pid, log)
        target = Target(MODEL, port, headers=(f"Authorization: Bearer {new_key(env)}",), pids=(pid,))
        await until_asked(url, target, log)
        yield target


if __name__ == "__main__":
    typer.run(main)
