"""`python -m bench.relay`: what the gateway adds to a request, beside what others add."""

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench.compiler import NoCompiler
from bench.cores import CannotPin, Cores, take_place
from bench.load import Target
from bench.machine import facts
from bench.processes import CannotStart
from bench.relay.cases import CASES, Case
from bench.relay.peers import PEERS, CannotInstall
from bench.relay.report import LOAM, STRAIGHT, cells, headings, notes, rows
from bench.relay.rounds import Results, Tell, as_json, hold_all, measure_all
from bench.relay.sides import Place, Side, engine, loam, straight
from bench.show import out, show, write

SIDES: dict[str, Side] = {STRAIGHT: straight, LOAM: loam, **PEERS}
RESULTS = Path(__file__).parent.parent / "results" / "relay.md"
HEAD = """\
What each gateway adds to a request, in turns in one run: the median of {rounds} rounds of {seconds:g} s (least..most).
The gateway has one core; a fake engine that writes as vLLM does and the load client have the other. Answers of 16
tokens, streams of 1,024, prompts of 1,000 bytes. CPU time is the gateway's, user and system, as the kernel counts it.
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
    """Requests, streams and memory through each gateway and straight to the engine, in turns."""
    wanted = sides.split(",")
    if unknown := set(wanted) - set(SIDES):
        raise typer.BadParameter(f"no such side: {', '.join(unknown)}; there are {', '.join(SIDES)}")
    results = Results(wanted, 1 if quick else rounds, seconds)
    is_quotable = set(wanted) == set(SIDES) and not (quick or cases)
    chosen = [case for case in CASES if cases in case.name]
    try:
        cores = take_place()
        asyncio.run(_run(results, chosen, cores))
    except (NoCompiler, CannotPin, CannotStart) as error:
        out.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from error
    _report(results, chosen, facts(cores), RESULTS if is_quotable else None)
    if json:
        json.write_bytes(orjson.dumps(as_json(results, facts(cores)), option=orjson.OPT_INDENT_2))
    if results.wrong:
        raise typer.Exit(1)


async def _run(results: Results, cases: Sequence[Case], cores: Cores) -> None:
    with tempfile.TemporaryDirectory(prefix="loam-bench-") as folder:
        async with AsyncExitStack() as stack:
            place = Place(Path(folder), cores, await stack.enter_async_context(engine(Path(folder))))
            targets = {side: target for side in results.sides if (target := await _start(side, place, results, stack))}
            await _measure(targets, cases, results)


def _report(results: Results, cases: Sequence[Case], told: dict[str, str], file: Path | None) -> None:
    told |= notes(results)
    found = rows(results, cases)
    show(headings(results), [cells(results, row, lambda of: of.with_spread) for row in found], told)
    if file:
        head = HEAD.format(rounds=results.rounds, seconds=results.seconds)
        write(file, head, headings(results), [cells(results, row, lambda of: of.with_range) for row in found], told)


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


async def _measure(targets: dict[str, Target], cases: Sequence[Case], results: Results) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=out) as progress:
        bar = progress.add_task("", total=results.rounds * len(cases) * len(targets) + len(targets))
        await measure_all(targets, cases, results, _tell_on(progress, bar))
        await hold_all(targets, results, _tell_on(progress, bar))


def _tell_on(progress: Progress, bar: TaskID) -> Tell:
    def tell(what: str) -> None:
        progress.update(bar, description=what)
        progress.advance(bar)

    return tell


if __name__ == "__main__":
    typer.run(main)
