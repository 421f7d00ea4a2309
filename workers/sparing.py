"""What a job goes on with whose recipe has ended since memory ran out. Pure."""

from typing import Any

from app.jobs.states import EventType
from workers.metrics import Told

KILLED = "Training was killed, most likely since memory ran out"
RAN_OUT = "Memory ran out"


def halved(hyperparameters: dict[str, Any], *, attempt: int) -> dict[str, Any] | None:
    """Half as many rows at once or fewer, so much more often: a step has the same rows. At the first attempt only."""
    rows, times = hyperparameters["batch_size"], hyperparameters["gradient_accumulation_steps"]
    if attempt > 1 or rows == 1:
        return None
    fewer = max(n for n in range(1, rows // 2 + 1) if rows * times % n == 0)
    return {**hyperparameters, "batch_size": fewer, "gradient_accumulation_steps": rows * times // fewer}


def told(hyperparameters: dict[str, Any], why: str) -> Told:
    data = {name: hyperparameters[name] for name in ("batch_size", "gradient_accumulation_steps")}
    size = f"{data['batch_size']} rows at once and {data['gradient_accumulation_steps']} times a step"
    return Told(EventType.WARNING, f"{why}; training goes on with {size}, the same in all", "warn", data)
