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
from bench.cores import CannotPin, Cores, take_place
from bench.figures import CPU_A_REQUEST, FIRST_CHUNK, RATE, TOKEN_RATE, Case
from bench.load import Asking, Target
from bench.machine import SCRATCH, facts
from bench.processes import CannotStart, free_port, running, until_answered
from bench.relay.sides import new_key, program, until_asked
from bench.report import LOAM, STRAIGHT
from bench.rounds import Results, measure_all
from bench.show import out, publish, telling

MODEL = "loam/demo"
RESULTS = Path(__file__).parent / "results" / "engine.md"
CONNECTIONS = (1, 8, 32)
ANSWERS = 2
ASKING = Asking(connections=1, tokens=64, prompt_bytes=200, extra='"ignore_eos":true', answers=ANSWERS)
STREAMED = replace(ASKING, stream=True)
FIRST_TOKEN = replace(STREAMED, tokens=1, answers=100)
RATES = (RATE, TOKEN_RATE, CPU_A_REQUEST)
HEAD = f"""\
# What the gateway takes from a real engine

The demo model on vLLM, asked through Loam and straight over the engine's own socket, in turns in one run: the median of
{{rounds}} rounds (least..most); ratios and what is added are taken within a round. All of the engine has one core; the
gateway and the load client share the other, as they would where a GPU does the engine's work. Both sides do the same
work: each connection has an answer that is not counted, and then, all beginning together, {ANSWERS} of 64 tokens or
{FIRST_TOKEN.answers} of one token; the time is until the last is there.\
"""
CASES = [
    *(Case(f"whole answers, {n} at once", replace(ASKING, connections=n), RATES) for n in CONNECTIONS),
    *(
        # Alone, so few first chunks have no quantiles: those are the last case's.
        Case(
            f"streamed answers, {n} at once",
            replace(STREAMED, connections=n),
            (*RATES, *(FIRST_CHUNK if n > 1 else ())),
        )
        for n in CONNECTIONS
    ),
    Case("answers of one token, 1 at once", FIRST_TOKEN, FIRST_CHUNK),
]


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often each side is measured.")] = 9,
    cases: Annotated[str, typer.Option(help="Only those whose name has this in it.")] = "",
) -> None:
    """Requests, tokens and time to the first chunk; a run of all cases is written to bench/results/engine.md."""
    chosen = [case for case in CASES if cases in case.name]
    results = Results([STRAIGHT, LOAM], [STRAIGHT], chosen, rounds)
    try:
        cores = take_place(with_gateway=True)
        asyncio.run(_run(results, cores))
    except (NoCompiler, CannotPin, CannotStart) as error:
        out.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from error
    told = facts() | {"cores": cores.told("gateway and load", "engine")}
    publish(results, told, HEAD, None if cases else RESULTS)
    if results.wrong:
        raise typer.Exit(1)


async def _run(results: Results, cores: Cores) -> None:
    with tempfile.TemporaryDirectory(prefix="loam-bench-", dir=SCRATCH) as folder:
        out.print("starting the gateway and its engine", style="dim")
        async with _gateway(Path(folder), cores) as target:
            socket = next((Path(folder) / "data" / "engines").glob("*.sock"))
            targets = {STRAIGHT: Target(MODEL, uds=socket), LOAM: target}
            with telling(results.rounds * len(results.cases) * len(targets)) as tell:
                await measure_all(targets, results, tell)


@asynccontextmanager
async def _gateway(folder: Path, cores: Cores) -> AsyncIterator[Target]:
    port, log = free_port(), folder / "server.log"
    env = {
        "PYTHONPATH": str(ROOT),
        "LOAM_DATA_DIR": str(folder / "data"),
        "LOAM_GPU_FALLBACK": "true",
        "HF_HUB_OFFLINE": "1",
        "LOAM_STANDBY_ENGINES": "0",
        "LOAM_REPLICA_IN_FLIGHT": "1000",  # else a second engine would start on the core of the one asked straight
        "LOAM_ENGINE_PYTHON": str(program(folder / "engine-python", cores.for_others([sys.executable]))),
    }
    async with running([sys.executable, "-m", "app", "serve", "--port", str(port)], log, env) as pid:
        url = f"http://127.0.0.1:{port}"
        await until_answered(f"{url}/health", pid, log)
        target = Target(MODEL, port, headers=(f"Authorization: Bearer {new_key(env)}",), pids=(pid,))
        await until_asked(url, target, log)
        yield target


if __name__ == "__main__":
    typer.run(main)
