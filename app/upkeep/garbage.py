"""Which of the things in the data dir nobody needs any more. Pure: what is there and what the store knows go in."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from app.files.survey import Kind, Thing

# How long a thing is left alone that might still be on its way to a row, or in somebody's hands.
GRACE_SECONDS = 3600.0
LOST_RUN_SECONDS = 24 * 3600.0
LOG_SECONDS = 7 * 24 * 3600.0

NAMES = {
    Kind.FILE: "bytes of deleted files",
    Kind.UPLOAD: "broken uploads",
    Kind.RUN: "runs of no job",
    Kind.ADAPTER: "adapters of no model",
    Kind.CHECKPOINT: "checkpoints of no model",
    Kind.UNFINISHED: "leftovers of broken runs",
    Kind.LOG: "old engine logs",
}


@dataclass(frozen=True)
class RunFacts:
    """What the store knows of a job's run. `ended_at`: no row has referred to more than it does now since then."""

    is_over: bool
    ended_at: float
    is_in_use: bool = False
    has_model: bool = False
    steps: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Known:
    """What the store knows. `since`: when it was begun; what is older was there before it, and may be another's."""

    since: float
    files: frozenset[str]
    runs: Mapping[str, RunFacts]


def garbage(things: Iterable[Thing], known: Known, *, now: float) -> Iterator[Thing]:
    return (thing for thing in things if _may_go(thing, known, now))


def _may_go(thing: Thing, known: Known, now: float) -> bool:
    age = now - thing.changed_at
    match thing.kind:
        case Kind.LOG:
            return age > LOG_SECONDS
        case Kind.UPLOAD:
            return age > GRACE_SECONDS
        case Kind.FILE:
            return thing.owner not in known.files and age > GRACE_SECONDS and thing.changed_at > known.since
        case Kind.RUN:
            return thing.owner not in known.runs and age > LOST_RUN_SECONDS and thing.changed_at > known.since
        case _:
            run = known.runs.get(thing.owner)
            return run is not None and _is_left(run, now) and not _is_kept(thing, run)


def _is_left(run: RunFacts, now: float) -> bool:
    return run.is_over and not run.is_in_use and now - run.ended_at > GRACE_SECONDS


def _is_kept(thing: Thing, run: RunFacts) -> bool:
    is_model = thing.kind is Kind.ADAPTER and run.has_model
    return is_model or (thing.kind is Kind.CHECKPOINT and thing.step in run.steps)
