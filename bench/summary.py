"""What several rounds say together. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Summary:
    """Of one figure over the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Summary | None":
        """None unless every round has a value: a median of what is left would flatter."""
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            return None
        return cls(median(known), min(known), max(known))

    @property
    def with_range(self) -> str:
        if self.least == self.most:
            return short(self.median)
        return f"{short(self.median)} ({short(self.least)}..{short(self.most)})"

    @property
    def with_spread(self) -> str:
        """The same in less room: how far the farthest round is from the median."""
        if self.least == self.most or not self.median:
            return short(self.median)
        farthest = max(self.most - self.median, self.median - self.least)
        return f"{short(self.median)} ±{abs(farthest / self.median):.0%}"


def above(values: Sequence[float | None], base: Sequence[float | None]) -> list[float | None]:
    """Round by round, how much more than the base."""
    pairs = zip(values, base, strict=True)
    return [None if value is None or less is None else value - less for value, less in pairs]


def times(values: Sequence[float | None], base: Sequence[float | None]) -> list[float | None]:
    """Round by round, how many times the base."""
    return [value / one if value is not None and one else None for value, one in zip(values, base, strict=True)]


def short(value: float) -> str:
    """Three digits that count; all of them left of the point."""
    if abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
