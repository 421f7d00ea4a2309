"""How far a start has come, by what the engine has logged. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from app.errors import Unavailable


@dataclass(frozen=True)
class Progress:
    """`fraction` of the whole start, by stages rather than by time: it never goes back, and 1 means ready."""

    stage: str
    fraction: float


class StillStarting(Unavailable):
    """`troubleshooting` has how far it is."""

    code = "engine_starting"

    @classmethod
    def of(
        cls, model_id: str, progress: Progress, elapsed_seconds: float, estimated_seconds: float | None
    ) -> "StillStarting":
        told = {
            "stage": progress.stage,
            "progress": progress.fraction,
            "elapsed_seconds": round(elapsed_seconds, 1),
            "estimated_seconds": estimated_seconds,
        }
        message = f"The engine of {model_id} is not ready yet ({progress.stage}); try again."
        return cls(message, troubleshooting=told, headers={"Retry-After": "10"})


STARTING = Progress("starting", 0.0)
READY = Progress("ready", 1.0)

# Where each stage begins, by the first line that tells of it.
STAGES = (
    (STARTING, re.compile(r"$^")),
    (Progress("configuring", 0.1), re.compile(r"\bpid=\d+\) ")),
    (Progress("loading_weights", 0.2), re.compile(r"Starting to load model")),
    (Progress("preparing", 0.7), re.compile(r"Loading weights took|Model loading took")),
    (Progress("compiling", 0.75), re.compile(r"Start compiling|Compiling a graph|Capturing CUDA graphs")),
    (Progress("serving", 0.95), re.compile(r"init engine .* took|Starting vLLM server|Application startup complete")),
)
SHARDS = re.compile(r"Loading .*checkpoint shards: +(\d+)% Completed")


def progress_of(lines: Iterable[str]) -> Progress:
    reached, percent = 0, 0
    for line in lines:
        reached = max([reached, *(n for n, (_, pattern) in enumerate(STAGES) if n > reached and pattern.search(line))])
        if shards := SHARDS.findall(line):
            percent = max(percent, int(shards[-1]))
    stage = STAGES[reached][0]
    return _within(stage, percent) if stage.stage == "loading_weights" else stage


def _within(stage: Progress, percent: int) -> Progress:
    """As far into the stage as the weights are."""
    ends_at = next(after.fraction for (before, _), (after, _) in pairwise(STAGES) if before == stage)
    return Progress(stage.stage, round(stage.fraction + (ends_at - stage.fraction) * percent / 100, 3))
