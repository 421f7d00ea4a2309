"""A queue that is fair between its lanes: they take turns, and inside one the first comes first. Pure."""

from collections import deque
from collections.abc import Iterator
from itertools import zip_longest
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Iterates in the order in which its items are to be served."""

    def __init__(self) -> None:
        self._lanes: dict[str, deque[Item]] = {}  # in the order of their turns

    def __len__(self) -> int:
        return sum(len(lane) for lane in self._lanes.values())

    def __iter__(self) -> Iterator[Item]:
        """The first of each, then the second of each; may be changed meanwhile."""
        absent = object()
        rounds = list(zip_longest(*self._lanes.values(), fillvalue=absent))
        return (item for turn in rounds for item in turn if item is not absent)  # type: ignore[misc]

    def add(self, lane: str, item: Item) -> None:
        self._lanes.setdefault(lane, deque()).append(item)

    def serve(self, lane: str, item: Item) -> None:
        """It got what it waited for: its lane's next turn comes after everybody else's."""
        items = self._lanes.pop(lane)
        items.remove(item)
        if items:
            self._lanes[lane] = items

    def leave(self, lane: str, item: Item) -> None:
        """It waits no more; nobody's turn has passed."""
        self._lanes[lane].remove(item)
        if not self._lanes[lane]:
            del self._lanes[lane]
