"""What was looked up a moment ago, forgotten all at once."""

import time
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

MAX_REMEMBERED = 10_000


class Remembered(Generic[Key, Value]):
    """Nothing in it is older than `seconds`. A look at it costs a dictionary's, and one at the clock."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._known: dict[Key, Value] = {}
        self._until = 0.0

    def find(self, key: Key) -> Value | None:
        return self._known.get(key) if time.monotonic() < self._until else None

    def add(self, key: Key, value: Value) -> None:
        now = time.monotonic()
        if now >= self._until or len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
            self._until = now + self._seconds
        self._known[key] = value

    @property
    def is_empty(self) -> bool:
        return not self._known or time.monotonic() >= self._until

    def forget(self) -> None:
        self._known.clear()
