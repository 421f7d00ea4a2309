"""`python -m bench.relay`: what the gateway adds to a request, beside what others add."""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import orjson
import typer

from bench.compiler import NoCompiler
from bench.cores import CannotPin, Cores, take_place
from bench.load import Target
from bench.machine import SCRATCH, facts
from bench.processes import CannotStart
from bench.relay.cases import CASES, HELD
from bench.relay.peers import PEERS, CannotInstall
from bench.relay.sides import Place, Side, engine, loam, straight
from bench.report import LOAM, STRAIGHT
from bench.rounds import Results, as_json, hold_all, measure_all
from bench.show import out, publish, telling

SIDES: dict[str, Side] = {STRAIGHT: straight, LOAM: loam, **PEERS}
RESULTS = Path(__file__).parent.parent / "results" / "relay.md"
HEAD = """\
# What each gateway adds to a request

In turns in one run: the median of {rounds} rounds of {seconds:g} s (least..most). The gateway has one core; a fake
engine that writes as vLLM does and the load client have the other. Answers of 16 tokens, streams of 1,024, prompts of
1,000 bytes. CPU time is the gateway's, user and system, as the kernel counts it.
Loam checks keys and credit and commits every answer to its ledger (SQLite, `synchronous=FULL`); its peers do not.\
"""


def main(
    sides: Annotated[str, typer.Option(help="Which, with commas.")] = ",".join(SIDES),
    cases: Annotated[str, typer.Option(help="Only those whose name has this in it.")] = "",
    rounds: Annotated[int, typer.Option(min=1, help="How often each side is measured.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.2, help="How long each measurement takes.")] = 1.0,
    quick: Annotated[bool, typer.Option("--quick", help="One round, to look and not to quote.")] = False,
    json: Annotated[Path | None, typer.Option(help="Every run as JSON, into this file.")] = None,
) -> None:
    """Requests, streams and memory through each gateway and straight to the engine, in turns.

    A run of all sides and cases is written to bench/results/relay.md.
    """
    wanted = sides.split(",")
    if unknown := set(wanted) - set(SIDES):
        raise typer.BadParameter(f"no such side: {', '.join(unknown)}; there are {', '.join(SIDES)}")
    peers = [side for side in wanted if side in PEERS]
    chosen = [case for case in CASES if cases in case.name]
    results = Results(wanted, peers, chosen, 1 if quick else rounds, seconds)
    is_whole = set(wanted) == set(SIDES) and not (quick or cases)
    try:
        cores = take_place()
        asyncio.run(_run(results, cores))
    except (NoCompiler, CannotPin, CannotStart) as error:
        out.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from error
    told = facts() | {"cores": cores.told("gateway", "engine and load")}
    publish(results, told, HEAD, RESULTS if is_whole else None)
    if json:
        json.write_bytes(orjson.dumps(as_json(results, told), option=orjson.OPT_INDENT_2))
    if results.wrong:
        raise typer.Exit(1)


async def _run(results: Results, cores: Cores) -> None:
    with tempfile.TemporaryDirectory(prefix="loam-bench-", dir=SCRATCH) as folder:
        async with AsyncExitStack() as stack:
            place = Place(Path(folder), cores, await stack.enter_async_context(engine(Path(folder))))
            targets = {side: target for side in results.sides if (target := await _start(side, place, results, stack))}
            with telling(results.rounds * len(results.cases) * len(targets) + len(targets)) as tell:
                await measure_all(targets, results, tell)
                await hold_all(targets, HELD, results, tell)


async def _start(side: str, place: Place, results: Results, stack: AsyncExitStack) -> Target | None:
    """None, with the reason among the results, when a peer cannot be installed or started."""
    out.print(f"starting {side}", style="dim")
    try:
        return await stack.enter_async_context(SIDES[side](place.within(side)))
    except (CannotInstall, CannotStart) as error:
        if side not in PEERS:
            raise
        results.missing[side] = str(error)
        return None


if __name__ == "__main__":
    typer.run(main)
