"""What a recipe reports, turned into what the job's history says. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.jobs.events import Level
from app.jobs.states import EventType

SHOWN = frozenset(
    {
        "step",
        "total_steps",
        "epoch",
        "train_loss",
        "train_mean_token_accuracy",
        "valid_loss",
        "valid_mean_token_accuracy",
        "learning_rate",
        "grad_norm",
        "tokens_per_second",
        "trained_tokens",
        "n_rows",
        "n_tokens",
        "trainable_parameters",
        "resumed_from_step",
    }
)


@dataclass(frozen=True)
class Told:
    """One event to be recorded."""

    event_type: EventType
    message: str
    level: Level = "info"
    data: dict[str, Any] = field(default_factory=dict)


def tell(record: Mapping[str, Any], *, attempt: int) -> list[Told]:
    """The events that one line of metrics stands for."""
    data = {key: value for key, value in record.items() if key in SHOWN}
    match record["kind"]:
        case "started":
            return [*_restart(record, attempt), Told(EventType.STARTED, "Training started", data=data)]
        case "step":
            message = f"Step {record['step']}/{record['total_steps']}: training loss={record['train_loss']:.4f}"
            return [Told(EventType.PROGRESS, message, data=data)]
        case "validation":
            message = f"Step {record['step']}: validation loss={record['valid_loss']:.4f}"
            return [Told(EventType.VALIDATION, message, data=data)]
        case "checkpoint":
            return [Told(EventType.CHECKPOINT, f"Checkpoint created at step {record['step']}", data=data)]
        case "finished":
            return [Told(EventType.TRAINED, "Training finished; the model is being published", data=data)]
        case _:
            return []


def _restart(record: Mapping[str, Any], attempt: int) -> list[Told]:
    step = record["resumed_from_step"]
    if attempt <= 1 and not step:
        return []
    where = f"goes on from the checkpoint of step {step}" if step else "starts again from step 1"
    return [Told(EventType.RESTARTED, f"The job was interrupted; training {where}", "warn", {"step": step})]
