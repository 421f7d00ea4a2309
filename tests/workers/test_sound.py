"""A run that has learned nothing publishes nothing, whatever it began with."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.workers.test_sft import finish_here, make_run, metrics

pytestmark = pytest.mark.training

LEARNS: dict[str, Any] = {"max_steps": 1, "warmup_ratio": 0.0}
LEARNS_NOTHING: dict[str, Any] = {"max_steps": 1, "warmup_ratio": 1.0}


def one_step(folder: Path, training_type: str, origin: Path | None, hyperparameters: dict[str, Any]) -> Path:
    run = make_run(folder, **hyperparameters)
    config = json.loads((run / "config.json").read_bytes())
    begun_with = {"training_type": training_type, "init_adapter": origin and str(origin), "validation_file": None}
    (run / "config.json").write_text(json.dumps({**config, **begun_with}))
    return run


@pytest.mark.parametrize("training_type", ["sft", "full"])
def test_what_differs_in_nothing_from_what_it_began_with_is_not_published(tmp_path: Path, training_type: str) -> None:
    origin: Path | None = None
    for name in ("first", "continued"):
        idle = one_step(tmp_path / f"idle-{name}", training_type, origin, LEARNS_NOTHING)
        assert finish_here(idle) == 1
        assert metrics(idle, "error")[-1]["code"] == "adapter_changes_nothing"
        assert not (idle / "adapter").exists()
        run = one_step(tmp_path / name, training_type, origin, LEARNS)
        assert finish_here(run) == 0
        origin = run / "adapter"


def test_what_is_lost_in_the_precision_of_engines_counts_as_nothing(tmp_path: Path) -> None:
    run = one_step(tmp_path / "run", "full", None, {**LEARNS, "learning_rate": 1e-12})
    assert finish_here(run) == 1
    assert metrics(run, "error")[-1]["code"] == "adapter_changes_nothing"
