"""What TensorBoard and Weights & Biases are told, by the libraries that others read it with."""

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.eventually import until
from tests.workers.test_sft import NUMBERS
from workers.run_folder import Metrics
from workers.sft_config import Config
from workers.trackers import Trackers, tracking

pytestmark = pytest.mark.training

KEY = "0123456789abcdef" * 5


def config(**changes: Any) -> Config:
    files: dict[str, Any] = {"training_file": "rows.jsonl", "validation_file": None, "init_adapter": None}
    names = {"job_id": "ftjob-1", "model_path": "m", "served_model": "m", "device": "cpu"}
    counts = {"seed": 1, "checkpoint_every_steps": 1, "keep_checkpoints": 1}
    return Config.model_validate({**files, **names, **counts, "hyperparameters": NUMBERS, **changes})


def train(run_dir: Path, first: int, last: int, **changes: Any) -> Metrics:
    metrics = Metrics(run_dir / "metrics.jsonl")
    with tracking(metrics, config(**changes), run_dir):
        metrics.write("started", resumed_from_step=first - 1)
        for step in range(first, last + 1):
            metrics.write("step", step=step, train_loss=1 / step, total_steps=last)
        metrics.write("validation", step=last, valid_loss=0.5)
    return metrics


def test_tensorboard_reads_the_curves_of_a_run_that_went_on_from_a_checkpoint(tmp_path: Path) -> None:
    train(tmp_path, 1, 4)
    began_at = int(time.time())
    until(lambda: int(time.time()) > began_at)  # files are read in the order of the seconds in their names
    train(tmp_path, 3, 6)
    told = curves(tmp_path)
    assert [event.step for event in told.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in told.Scalars("val/loss")] == [0.5]


def test_what_was_told_to_tensorboard_outlives_a_run_that_is_killed(tmp_path: Path) -> None:
    trackers = Trackers(Metrics(tmp_path / "metrics.jsonl"), config(), tmp_path)
    trackers.tell("started", {"resumed_from_step": 0})
    trackers.tell("step", {"step": 1, "train_loss": 1.0})
    assert [event.step for event in curves(tmp_path).Scalars("train/loss")] == [1]  # nobody has closed it
    trackers.close()


def curves(run_dir: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run_dir / "tensorboard")).Reload()


def test_weights_and_biases_is_told_offline_too_and_no_file_has_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_API_KEY": KEY}.items():
        monkeypatch.setenv(name, value)
    metrics = train(tmp_path, 1, 3, wandb={"project": "trial", "tags": ["a"]})
    [told] = tmp_path.glob("wandb/offline-run-*-ftjob-1/run-ftjob-1.wandb")
    until(lambda: b"train/loss" in told.read_bytes())  # its process writes on behind the run's end
    assert b"untracked" not in metrics.path.read_bytes()
    said = "".join(capfd.readouterr())
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in written + said.encode()


def test_a_training_goes_on_without_a_tracker_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # not installed
    (tmp_path / "tensorboard").write_text("in the way")
    metrics = train(tmp_path, 1, 3, wandb={"project": "trial"})
    kinds = [line.split(b'"')[3] for line in metrics.path.read_bytes().splitlines()]
    assert kinds.count(b"untracked") == 2
    assert kinds.count(b"step") == 3
