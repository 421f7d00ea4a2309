"""What may go, and above all what may not."""

from dataclasses import replace
from pathlib import Path

import pytest

from app.files.survey import Kind, Thing
from app.upkeep.garbage import GRACE_SECONDS, LOG_SECONDS, LOST_RUN_SECONDS, Known, RunFacts, garbage

NOW = 1_000_000_000.0
LONG_AGO = NOW - 30 * 24 * 3600
OVER = RunFacts(is_over=True, ended_at=LONG_AGO)
MODEL = replace(OVER, has_model=True, steps=frozenset({10}))
RUNNING = replace(OVER, is_over=False)
KNOWN = Known(since=LONG_AGO - 1, files=frozenset({"known"}), runs={})


def goes(kind: Kind, *, age: float = NOW - LONG_AGO, owner: str = "j", step: int = 0, known: Known = KNOWN) -> bool:
    thing = Thing(Path("x"), kind, NOW - age, owner, step)
    return list(garbage([thing], known, now=NOW)) == [thing]


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [
        (Kind.FILE, GRACE_SECONDS),
        (Kind.UPLOAD, GRACE_SECONDS),
        (Kind.RUN, LOST_RUN_SECONDS),
        (Kind.LOG, LOG_SECONDS),
    ],
)
def test_what_is_young_stays(kind: Kind, seconds: float) -> None:
    assert not goes(kind, age=seconds - 1)
    assert goes(kind, age=seconds + 1)


def test_what_the_store_knows_stays() -> None:
    assert not goes(Kind.FILE, owner="known")
    for run in (OVER, RUNNING, MODEL):
        assert not goes(Kind.RUN, known=replace(KNOWN, runs={"j": run}))


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.RUN])
def test_what_is_older_than_the_store_may_be_anothers_and_stays(kind: Kind) -> None:
    """A gateway that was given a new and empty store by mistake must not clear the data dir."""
    assert not goes(kind, known=replace(KNOWN, since=LONG_AGO + 1))


PARTS = (Kind.ADAPTER, Kind.CHECKPOINT, Kind.UNFINISHED)
RUNS: dict[str, tuple[RunFacts | None, set[Kind]]] = {
    "of a job that the store does not know": (None, set()),
    "running": (RUNNING, set()),
    "over a moment ago": (replace(OVER, ended_at=NOW - GRACE_SECONDS + 1), set()),
    "over, and an engine has its adapter": (replace(OVER, is_in_use=True), set()),
    "over without a model": (OVER, set(PARTS)),
    "over with a model and this checkpoint": (MODEL, {Kind.UNFINISHED}),
    "over with a model and another checkpoint": (replace(MODEL, steps=frozenset({20})), {*PARTS} - {Kind.ADAPTER}),
    "failed with a checkpoint, which can be chatted with": (replace(MODEL, has_model=False), {*PARTS[::2]}),
}


@pytest.mark.parametrize(("run", "gone"), RUNS.values(), ids=RUNS.keys())
def test_of_a_run_goes_what_no_row_refers_to(run: RunFacts | None, gone: set[Kind]) -> None:
    known = replace(KNOWN, runs={"j": run} if run else {})
    assert {kind for kind in PARTS if goes(kind, step=10, known=known)} == gone
