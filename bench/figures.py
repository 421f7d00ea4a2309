"""Figures, each a number of one run, and the cases that give them. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.load import Asking, Quantiles, Run


@dataclass(frozen=True)
class Figure:
    """One number of a run; None where the run does not have it. `added`: told as what it is above straight."""

    name: str
    of: Callable[[Run], float | None]
    added: bool = False


@dataclass(frozen=True)
class Case:
    name: str
    asking: Asking
    figures: tuple[Figure, ...]


def _each(count: Callable[[Run], int]) -> Callable[[Run], float | None]:
    """CPU microseconds for each of what `count` counts."""
    return lambda run: run.cpu_seconds * 1e6 / count(run) if run.cpu_seconds and count(run) else None


def _quantile(of: Callable[[Run], Quantiles | None], name: str) -> Callable[[Run], float | None]:
    def read(run: Run) -> float | None:
        quantiles = of(run)
        return None if quantiles is None else float(getattr(quantiles, name))

    return read


RATE = Figure("requests/s", lambda run: run.load.requests / run.load.seconds)
TOKEN_RATE = Figure("tokens/s", lambda run: run.load.tokens / run.load.seconds)
CPU_A_REQUEST = Figure("CPU µs / request", _each(lambda run: run.load.requests))
CHUNK_RATE = Figure("chunks/s", lambda run: run.load.events / run.load.seconds)
CPU_A_CHUNK = Figure("CPU µs / chunk", _each(lambda run: run.load.events))
FIRST_CHUNK = tuple(
    Figure(f"first chunk, added µs, {name}", _quantile(lambda run: run.load.first_chunk_us, name), added=True)
    for name in ("p50", "p99")
)
DELAY = tuple(
    Figure(f"engine to client, µs, {name}", _quantile(lambda run: run.load.chunk_delay_us, name))
    for name in ("p50", "p99")
)
