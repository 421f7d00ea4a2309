"""metrics.jsonl, which a recipe writes line by line and others read while it grows."""

from pathlib import Path
from typing import Any

import orjson

# What is measured of a step.
MEASURED = (
    "step",
    "epoch",
    "train_loss",
    "train_mean_token_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
    "learning_rate",
    "grad_norm",
    "tokens_per_second",
    "trained_tokens",
)


def read_metrics(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The whole lines past `offset`, and the offset after them.

    A line that is still being written waits; one that a crash tore is passed over.
    """
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    records = [record for line in whole.split(b"\n") if (record := _parse(line))]
    return records, offset + len(whole)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) and "kind" in record else None
