"""What a recipe reports, turned into what the job's history says. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.jobs.events import Level
from app.jobs.metrics import MEASURED
from app.jobs.states import EventType

SHOWN = frozenset(
    {
        *MEASURED,
        "total_steps",
        "n_rows",
        "lines",
        "batch_size",
        "gradient_accumulation_steps",
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
    before = _restart(record, attempt) if record["kind"] == "started" else []
    if not (known := HISTORY.get(record["kind"])):
        return []
    event_type, level, words = known
    return [*before, Told(event_type, words(record), level, data)]


def _restart(record: Mapping[str, Any], attempt: int) -> list[Told]:
    step = record["resumed_from_step"]
    if attempt <= 1 and not step:
        return []
    where = f"goes on from the checkpoint of step {step}" if step else "starts again from step 1"
    return [Told(EventType.RESTARTED, f"The job was interrupted; training {where}", "warn", {"step": step})]


def _left_out(record: Mapping[str, Any]) -> str:
    lines = ", ".join(map(str, record["lines"])) + (", …" if record["n_rows"] > len(record["lines"]) else "")
    why = "no assistant token to learn within max_seq_length and its weights"
    return f"Rows of the {record['file']} left out, since they have {why}: {record['n_rows']} (lines {lines})"


def _halved(record: Mapping[str, Any]) -> str:
    size = f"{record['batch_size']} rows at once and {record['gradient_accumulation_steps']} times a step"
    return f"Memory ran out at step {record['step']}; training goes on with {size}, the same in all"


def _step(record: Mapping[str, Any]) -> str:
    return f"Step {record['step']}/{record['total_steps']}: training loss={record['train_loss']:.4f}"


HISTORY: dict[str, tuple[EventType, Level, Callable[[Mapping[str, Any]], str]]] = {
    "started": (EventType.STARTED, "info", lambda _: "Training started"),
    "left_out": (EventType.WARNING, "warn", _left_out),
    "halved": (EventType.WARNING, "warn", _halved),
    "untracked": (
        EventType.WARNING,
        "warn",
        lambda record: f"{record['tracker']} is told no more of this training ({record['reason']})",
    ),
    "step": (EventType.PROGRESS, "info", _step),
    "validation": (
        EventType.VALIDATION,
        "info",
        lambda record: f"Step {record['step']}: validation loss={record['valid_loss']:.4f}",
    ),
    "checkpoint": (EventType.CHECKPOINT, "info", lambda record: f"Checkpoint created at step {record['step']}"),
    "finished": (EventType.TRAINED, "info", lambda _: "Training finished; the model is being published"),
}
