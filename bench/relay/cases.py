"""What is measured, and which figures each measurement gives."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from bench.load import Asking, Quantiles, Run

ANSWER_TOKENS = 16
LONG_TOKENS = 1024
TOKENS_PER_SECOND = 50
HELD = Asking(connections=1000, tokens=100_000, stream=True, pace_us=1_000_000, stamped=True)


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

WHOLE = Asking(connections=1, tokens=ANSWER_TOKENS)
STREAMED = replace(WHOLE, stream=True, stamped=True, pace_us=0)
LONG = replace(STREAMED, tokens=LONG_TOKENS)
PACED = replace(LONG, pace_us=1_000_000 // TOKENS_PER_SECOND)

CASES = [
    *(Case(f"whole answers, {n} at once", replace(WHOLE, connections=n), (RATE, CPU_A_REQUEST)) for n in (1, 32, 128)),
    Case("streamed answers, 1 at once", STREAMED, (RATE, CPU_A_REQUEST, *FIRST_CHUNK)),
    *(
        Case(f"streamed answers, {n} at once", replace(STREAMED, connections=n), (RATE, CPU_A_REQUEST))
        for n in (32, 128)
    ),
    *(Case(f"{n} streams at full speed", replace(LONG, connections=n), (CHUNK_RATE, CPU_A_CHUNK)) for n in (32, 256)),
    Case(
        f"256 streams at {TOKENS_PER_SECOND} tokens/s",
        replace(PACED, connections=256),
        (CHUNK_RATE, replace(CPU_A_CHUNK, name="CPU µs / token"), *DELAY),
    ),
]
