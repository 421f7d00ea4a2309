"""What a recipe reports, as a job's history tells it."""

from pathlib import Path
from typing import Any

import pytest

from app.jobs.metrics import read_metrics
from app.jobs.states import EventType
from workers.metrics import tell

STEP = {"kind": "step", "step": 3, "total_steps": 9, "train_loss": 1.23456, "secret_path": "/data"}


@pytest.mark.parametrize(
    ("record", "event_type", "message"),
    [
        ({"kind": "started", "resumed_from_step": 0}, EventType.STARTED, "Training started"),
        (STEP, EventType.PROGRESS, "Step 3/9: training loss=1.2346"),
        ({"kind": "validation", "step": 3, "valid_loss": 2}, EventType.VALIDATION, "Step 3: validation loss=2.0000"),
        ({"kind": "checkpoint", "step": 3, "path": "/x"}, EventType.CHECKPOINT, "Checkpoint created at step 3"),
        ({"kind": "finished"}, EventType.TRAINED, "Training finished; the model is being published"),
    ],
)
def test_a_line_is_told_as_one_event(record: dict[str, Any], event_type: EventType, message: str) -> None:
    [told] = tell(record, attempt=1)
    assert (told.event_type, told.message, told.level) == (event_type, message, "info")
    assert not {"secret_path", "path", "kind"} & set(told.data)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"kind": "left_out", "file": "training file", "n_rows": 3, "lines": [2, 9]},
            "Rows of the training file left out, since they have no assistant token to learn within max_seq_length and "
            "its weights: 3 (lines 2, 9, …)",
        ),
        (
            {"kind": "halved", "step": 4, "batch_size": 2, "gradient_accumulation_steps": 6},
            "Memory ran out at step 4; training goes on with 2 rows at once and 6 times a step, the same in all",
        ),
    ],
)
def test_what_its_owner_should_know_is_a_warning(record: dict[str, Any], message: str) -> None:
    [told] = tell(record, attempt=1)
    assert (told.event_type, told.message, told.level) == (EventType.WARNING, message, "warn")


@pytest.mark.parametrize("kind", ["error", "of tomorrow"])
def test_what_is_no_history_is_not_told(kind: str) -> None:
    assert tell({"kind": kind}, attempt=1) == []


@pytest.mark.parametrize(
    ("step", "attempt", "said"), [(4, 2, "goes on from the checkpoint of step 4"), (0, 2, "starts again from step 1")]
)
def test_a_restart_is_told_before_the_start(step: int, attempt: int, said: str) -> None:
    restarted, started = tell({"kind": "started", "resumed_from_step": step}, attempt=attempt)
    assert (restarted.event_type, restarted.level, started.event_type) == (
        EventType.RESTARTED,
        "warn",
        EventType.STARTED,
    )
    assert said in restarted.message


def test_a_line_is_read_once_and_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path, 0) == ([], 0)
    path.write_bytes(b'{"kind": "a"}\n{"kind": ')
    assert read_metrics(path, 0) == ([{"kind": "a"}], 14)
    assert read_metrics(path, 14) == ([], 14)
    path.write_bytes(b'{"kind": "a"}\n{"kind": "b"}\n')
    assert read_metrics(path, 14) == ([{"kind": "b"}], 28)


def test_lines_that_a_crash_tore_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"kind": "a"}\n{"kind": {"kind": "b"}\n\n[]\n{"loss": NaN, "kind": 1}\n{"kind": "c"}\n')
    assert [record["kind"] for record in read_metrics(path)[0]] == ["a", "c"]
