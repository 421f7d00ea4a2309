"""The queue: organisations take turns, however much one of them asks."""

from app.engines.waiting import FairQueue


def queue_of(*items: str) -> FairQueue[str]:
    """Items are named after their organisation: `a1`."""
    queue = FairQueue[str]()
    for item in items:
        queue.add(item[0], item)
    return queue


def served(queue: FairQueue[str]) -> list[str]:
    """One after the other, each the first in turn."""
    order = []
    while queue:
        order.append(next(iter(queue)))
        queue.serve(order[-1][0], order[-1])
    return order


def test_organisations_take_turns_and_inside_one_the_first_comes_first() -> None:
    queue = queue_of("a1", "a2", "a3", "b1", "c1", "b2")
    assert list(queue) == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert served(queue) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_whoever_was_served_comes_after_those_who_came_meanwhile() -> None:
    queue = queue_of("a1", "a2")
    queue.serve("a", "a1")
    queue.add("b", "b1")
    queue.add("a", "a3")
    assert served(queue) == ["a2", "b1", "a3"]


def test_who_cannot_be_served_yet_keeps_the_turn() -> None:
    queue = queue_of("a1", "b1", "b2")
    queue.serve("b", "b1")
    assert list(queue) == ["a1", "b2"]


def test_who_leaves_takes_nobodys_turn() -> None:
    queue = queue_of("a1", "b1", "a2")
    queue.leave("a", "a1")
    assert list(queue) == ["a2", "b1"]
    queue.leave("a", "a2")
    queue.leave("b", "b1")
    assert len(queue) == 0
    assert list(queue) == []


def test_the_queue_may_change_while_it_is_gone_through() -> None:
    queue = queue_of("a1", "b1", "b2")
    for item in queue:
        queue.serve(item[0], item)
    assert len(queue) == 0
