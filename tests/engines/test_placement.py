"""Placement, rule by rule."""

from typing import Any

import pytest

from app.catalog.spec import GpuChoice
from app.engines.placement import (
    Decision,
    MakeRoom,
    Refuse,
    Reuse,
    Rules,
    Running,
    Start,
    Wait,
    Wanted,
    may_grow,
    plan,
)

A100, TWO = GpuChoice.parse("A100"), GpuChoice.parse("A100:2")
CPU = GpuChoice.parse("CPU")
RULES = Rules(settle_seconds=5, drain_after_seconds=30)
PATIENT = 29.0
IMPATIENT = 30.0


def engine(name: str, gpu: GpuChoice = A100, **changes: Any) -> Running:
    """Named after its model; a second one of it has a number behind."""
    return Running(name, name[0], gpu, **changes)


def wants(model: str | None, gpu: GpuChoice = A100, waited: float = 0.0) -> Wanted:
    return Wanted(model, gpu, waited)


def planned(
    waiting: list[Wanted], running: list[Running], free: int = 0, total: int = 4, elsewhere: int = 0
) -> list[Decision]:
    """What neither is free nor has an engine of these or elsewhere, jobs have."""
    there = {"A100": elsewhere}
    return plan(waiting, running, free={"A100": free}, elsewhere=there, total={"A100": total, "CPU": 1}, rules=RULES)


IDLE: dict[str, Any] = {"idle_seconds": 9.0}
BUSY: dict[str, Any] = {"in_flight": 1}

CASES: list[tuple[str, Wanted, list[Running], int, Decision]] = [
    ("an engine of the model is used again", wants("a"), [engine("a")], 1, Reuse("a")),
    ("one that is starting is waited for with it", wants("a"), [engine("a", is_starting=True)], 1, Reuse("a")),
    ("the replica with less to do is used", wants("a"), [engine("a", **BUSY), engine("a2")], 0, Reuse("a2")),
    ("another count of GPUs is another engine", wants("a", TWO), [engine("a")], 2, Start()),
    ("another type of GPU is another engine", wants("a"), [engine("a", CPU)], 1, Start()),
    ("one that stops is not used again", wants("a"), [engine("a", is_stopping=True)], 1, Start()),
    ("free devices are used before anybody is evicted", wants("b"), [engine("a", **IDLE)], 1, Start()),
    ("an idle engine is evicted", wants("b"), [engine("a", **IDLE)], 0, MakeRoom(("a",))),
    (
        "the one that was used longest ago is evicted",
        wants("d"),
        [engine("a", idle_seconds=1.0), engine("b", idle_seconds=3.0), engine("c", idle_seconds=2.0)],
        0,
        MakeRoom(("b",)),
    ),
    (
        "no more are evicted than are needed",
        wants("d", TWO),
        [engine("a", **IDLE), engine("b", **IDLE), engine("c", **IDLE)],
        1,
        MakeRoom(("a",), lacks=1),
    ),
    ("a busy engine is waited for", wants("b", waited=PATIENT), [engine("a", **BUSY)], 0, Wait(lacks=1)),
    ("a starting engine is waited for", wants("b", waited=99), [engine("a", is_starting=True)], 0, Wait(lacks=1)),
    (
        "a pinned engine stays though it is idle",
        wants("c", waited=99),
        [engine("a", is_pinned=True), engine("b", is_starting=True)],
        0,
        Wait(lacks=1),
    ),
    (
        "a pinned engine stays though it is busy",
        wants("c", waited=99),
        [engine("a", is_pinned=True, **BUSY), engine("b", is_starting=True)],
        0,
        Wait(lacks=1),
    ),
    ("nothing is hoped for from a pinned engine", wants("b", waited=99), [engine("a", is_pinned=True)], 0, Wait()),
    ("one that was just warmed stays", wants("b"), [engine("a", ready_seconds=4.9)], 0, Wait(lacks=1)),
    ("one that has settled goes", wants("b"), [engine("a", ready_seconds=5.0)], 0, MakeRoom(("a",))),
    (
        "idle engines are not evicted in vain",
        wants("c", TWO),
        [engine("a", **IDLE), engine("b", **BUSY)],
        0,
        Wait(lacks=1),
    ),
    (
        "a busy engine is drained for who has waited long",
        wants("b", waited=IMPATIENT),
        [engine("a", **BUSY)],
        0,
        MakeRoom((), ("a",)),
    ),
    (
        "a busy engine that has not had its turn goes on",
        wants("b", waited=99),
        [engine("a", ready_seconds=29, **BUSY)],
        0,
        Wait(lacks=1),
    ),
    (
        "idle ones go before a busy one is drained",
        wants("c", TWO, IMPATIENT),
        [engine("a", **IDLE), engine("b", **BUSY)],
        0,
        MakeRoom(("a",), ("b",)),
    ),
    (
        "an idle one stays where the drained one has enough",
        wants("c", TWO, IMPATIENT),
        [engine("a", **IDLE), engine("b", TWO, **BUSY)],
        0,
        MakeRoom((), ("b",)),
    ),
    (
        "the one that drains already is drained on, not another",
        wants("c", waited=IMPATIENT),
        [engine("a", in_flight=1), engine("b", in_flight=5, is_draining=True)],
        0,
        MakeRoom((), ("b",)),
    ),
    (
        "the least busy one is drained",
        wants("c", waited=IMPATIENT),
        [engine("a", in_flight=5), engine("b", in_flight=2)],
        0,
        MakeRoom((), ("b",)),
    ),
    (
        "one that has drained goes at once",
        wants("c"),
        [engine("a", idle_seconds=9), engine("b", is_draining=True, ready_seconds=1)],
        0,
        MakeRoom(("b",)),
    ),
    ("devices on their way are waited for", wants("b"), [engine("a", is_stopping=True)], 0, Wait()),
    (
        "nobody is evicted beside devices on their way",
        wants("c"),
        [engine("a", is_stopping=True), engine("b", **IDLE)],
        0,
        Wait(),
    ),
    ("more than there are is refused", wants("a", GpuChoice.parse("A100:8")), [], 4, Refuse("A100:8 is more than")),
    ("a type that is not here is refused", wants("a", GpuChoice.parse("H100")), [], 4, Refuse("H100 is more than")),
    ("a job finds free devices", wants(None), [engine("a", **IDLE)], 1, Start()),
    ("a job makes an idle engine go", wants(None), [engine("a", **IDLE)], 0, MakeRoom(("a",))),
    ("a job that has just come lets a busy engine go on", wants(None), [engine("a", **BUSY)], 0, Wait(lacks=1)),
    ("a job drains a busy engine", wants(None, waited=IMPATIENT), [engine("a", **BUSY)], 0, MakeRoom((), ("a",))),
]


@pytest.mark.parametrize(
    ("wanted", "running", "free", "decision"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_each_rule(wanted: Wanted, running: list[Running], free: int, decision: Decision) -> None:
    [decided] = planned([wanted], running, free)
    if isinstance(decision, Refuse):
        assert isinstance(decided, Refuse)
        assert decided.reason.startswith(decision.reason)
    else:
        assert decided == decision


def test_what_was_promised_to_one_is_not_promised_to_another() -> None:
    running = [engine("x", **IDLE), engine("y", **IDLE)]
    waiting = [wants("a"), wants("b"), wants("c"), wants("d")]
    assert planned(waiting, running, free=1) == [Start(), MakeRoom(("x",)), MakeRoom(("y",)), Wait(lacks=1)]


def test_those_who_want_the_same_model_get_one_engine() -> None:
    assert planned([wants("a"), wants("a"), wants("b")], [], free=4) == [Start(), Wait(), Start()]


def test_small_wishes_do_not_starve_a_large_one_that_came_before() -> None:
    assert planned([wants("a", TWO), wants("b")], [engine("x", **BUSY)], free=1, total=2) == [Wait(lacks=2), Wait()]


def test_who_waits_for_one_type_holds_up_nobody_on_another() -> None:
    waiting = [wants("a"), wants("b", CPU), wants("x")]
    running = [engine("x", **BUSY)]
    decided = plan(waiting, running, free={"CPU": 1}, elsewhere={}, total={"A100": 1, "CPU": 1}, rules=RULES)
    assert decided == [Wait(lacks=1), Start(), Reuse("x")]


def test_an_engine_that_must_go_for_one_is_not_used_by_those_behind() -> None:
    assert planned([wants("b"), wants("a")], [engine("a", **IDLE)], total=1) == [MakeRoom(("a",)), Wait(lacks=1)]
    assert planned([wants("a"), wants("b")], [engine("a", **IDLE)], total=1) == [Reuse("a"), Wait(lacks=1)]


def test_surplus_of_what_is_evicted_is_there_for_the_next() -> None:
    assert planned([wants("b"), wants("c")], [engine("a", TWO, **IDLE)], total=2) == [MakeRoom(("a",)), Wait()]


def test_who_waits_for_what_jobs_have_holds_up_nobody() -> None:
    """A job may go on for hours; an engine that starts meanwhile can give way when it has ended."""
    assert planned([wants(None, TWO), wants("b")], [], free=1, total=2) == [Wait(), Start()]
    assert planned([wants("a", TWO, 99), wants("b")], [engine("x", **IDLE)], total=2) == [Wait(), MakeRoom(("x",))]


@pytest.mark.parametrize(
    ("wanted", "running", "free", "decision"),
    [
        (wants(None, TWO), [engine("x", **IDLE)], 0, MakeRoom(("x",))),
        (wants(None, TWO, PATIENT), [engine("x", **BUSY)], 0, Wait(lacks=2)),
        (wants(None, TWO, IMPATIENT), [engine("x", **BUSY)], 0, MakeRoom((), ("x",))),
        (wants("a", TWO, IMPATIENT), [engine("x", **BUSY)], 0, Wait(lacks=2)),
        (wants("a", TWO, IMPATIENT), [engine("x", **BUSY)], 1, MakeRoom((), ("x",), lacks=1)),
        (wants("a", TWO), [engine("x", **IDLE)], 0, Wait(lacks=1)),
    ],
)
def test_several_gateways_together_give_what_none_has_alone(
    wanted: Wanted, running: list[Running], free: int, decision: Decision
) -> None:
    """What waits elsewhere is given a part; a gateway's own request asks for a part of the others before it takes."""
    elsewhere = 2 - free - len(running)
    decided = planned([wanted, wants("b")], running, free=free, total=2, elsewhere=elsewhere)
    assert decided[0] == decision
    assert isinstance(decided[1], Wait)


@pytest.mark.parametrize(
    ("replicas", "waiting", "free", "grows"),
    [
        ([engine("a", in_flight=8)], [], 1, True),
        ([engine("a", in_flight=7)], [], 1, False),
        ([engine("a", in_flight=8), engine("a2", in_flight=7)], [], 1, False),
        ([engine("a", in_flight=8), engine("a2", in_flight=9)], [], 1, True),
        ([engine("a", in_flight=8), engine("a2", is_starting=True)], [], 1, False),
        ([], [], 1, False),
        ([engine("a", in_flight=8)], [], 0, False),
        ([engine("a", in_flight=8)], [wants("b")], 1, False),
        ([engine("a", in_flight=8)], [wants(None)], 1, False),
        ([engine("a", in_flight=8)], [wants("b", CPU)], 1, True),
    ],
)
def test_a_replica_starts_where_all_are_crowded_and_nobody_else_wants_the_device(
    replicas: list[Running], waiting: list[Wanted], free: int, grows: bool
) -> None:
    assert may_grow(replicas, waiting, gpu=A100, free=free, crowded_at=8) is grows
