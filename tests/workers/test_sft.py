"""The real recipe, on the demo model and a few rows."""

import json
import signal
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest
from safetensors.torch import load_file

from app.settings import ROOT
from tests.eventually import until
from tests.workers.forks import status
from tests.workers.recipes import finish, start
from workers.sft import main

pytestmark = pytest.mark.training

ROWS = [
    {"messages": [{"role": "user", "content": f"What is number {i}?"}, {"role": "assistant", "content": f"It is {i}."}]}
    for i in range(8)
]
NUMBERS = {
    "n_epochs": 6,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 0.003,
    "warmup_ratio": 0.1,
    "lr_scheduler_type": "cosine",
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "max_seq_length": 256,
    "packing": False,
    "lora_r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.1,
    "lora_target_modules": "all-linear",
    "use_qlora": False,
    "train_on_inputs": False,
    "gradient_checkpointing": False,
    "max_steps": None,
}


def make_run(folder: Path, rows: list[dict[str, Any]] | None = None, **hyperparameters: Any) -> Path:
    folder.mkdir(parents=True)
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows or ROWS), "utf-8")
    config = {
        "job_id": "ftjob-1",
        "model_path": str(ROOT / "demo" / "model"),
        "served_model": "loam/demo",
        "training_file": str(data),
        "validation_file": str(data),
        "init_adapter": None,
        "device": "cpu",
        "seed": 7,
        "checkpoint_every_steps": 3,
        "keep_checkpoints": 2,
        "hyperparameters": {**NUMBERS, **hyperparameters},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def finish_here(run: Path) -> int:
    """As `finish`, but in this process, whose warnings are failures."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        return main(run, None)
    finally:
        signal.signal(signal.SIGTERM, before)


def metrics(run: Path, kind: str) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


@pytest.fixture(scope="module", params=[True, False], ids=["packed", "padded"])
def packing(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, packing: bool) -> Path:
    run = make_run(tmp_path_factory.mktemp("sft") / "undisturbed", packing=packing)
    assert finish(run) == 0, (run / "log.txt").read_text()
    return run


def test_the_loss_falls_and_every_step_is_told(undisturbed: Path) -> None:
    steps = metrics(undisturbed, "step")
    assert [step["step"] for step in steps] == list(range(1, 13))
    assert {step["total_steps"] for step in steps} == {12}
    assert steps[-1]["train_loss"] < steps[0]["train_loss"] / 2
    assert steps[-1]["trained_tokens"] > steps[0]["trained_tokens"] > 0
    valid = [record["valid_loss"] for record in metrics(undisturbed, "validation")]
    assert len(valid) == NUMBERS["n_epochs"]
    assert valid[-1] < valid[0]


def test_the_adapter_is_one_that_peft_and_engines_load(undisturbed: Path) -> None:
    config = json.loads((undisturbed / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["bias"]) == (8, 16, "none")
    assert config["base_model_name_or_path"] == "loam/demo"
    assert load_file(undisturbed / "adapter" / "adapter_model.safetensors")
    assert "{%" in (undisturbed / "adapter" / "chat_template.jinja").read_text()


def test_only_the_newest_checkpoints_are_kept(undisturbed: Path) -> None:
    assert sorted(path.name for path in (undisturbed / "checkpoints").iterdir()) == ["step-6", "step-9"]


def test_a_checkpoint_has_the_template_that_it_was_taught_with(undisturbed: Path) -> None:
    given, kept = (undisturbed / name / "chat_template.jinja" for name in ("adapter", "checkpoints/step-9"))
    assert kept.read_text() == given.read_text()


def test_a_run_that_was_killed_ends_with_the_same_weights_as_an_undisturbed_one(
    undisturbed: Path, packing: bool, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "killed", packing=packing)
    process = start(run)
    until(lambda: metrics(run, "checkpoint"), within_seconds=60)
    time.sleep(Random().uniform(0, 0.3))
    process.kill()
    assert status(process) == -signal.SIGKILL
    assert not (run / "adapter").exists()

    assert finish(run) == 0, (run / "log.txt").read_text()
    resumed = metrics(run, "started")[-1]["resumed_from_step"]
    assert resumed >= 3
    assert next(s["step"] for s in metrics(run, "step")[::-1] if s["step"] <= resumed + 1) == resumed + 1
    ours, theirs = (load_file(r / "adapter" / "adapter_model.safetensors") for r in (run, undisturbed))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)


def test_a_sigterm_writes_a_checkpoint_and_the_next_start_goes_on(tmp_path: Path) -> None:
    run = make_run(tmp_path / "stopped", n_epochs=500)
    process = start(run)
    until(lambda: len(metrics(run, "step")) >= 2, within_seconds=60)
    process.terminate()
    assert status(process) == 75
    told = metrics(run, "checkpoint")[-1]["step"]
    assert (run / "checkpoints" / f"step-{told}" / "adapter_config.json").exists()

    process = start(run)
    until(lambda: len(metrics(run, "started")) == 2, within_seconds=60)
    process.kill()
    status(process)
    assert metrics(run, "started")[1]["resumed_from_step"] == told


def test_a_run_that_gets_no_better_stops_early_and_gives_its_best(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"early_stopping_patience": 2, "learning_rate": 0.05, "n_epochs": 40, "use_rslora": True}
    run = make_run(tmp_path / "early", **asked, warmup_ratio=0.0, validation_split=0.25)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "validation_file": None}))
    assert finish_here(run) == 0
    told = metrics(run, "validation")
    best = min(told, key=lambda record: record["valid_loss"])
    assert metrics(run, "step")[-1]["step"] < metrics(run, "step")[-1]["total_steps"]
    assert told.index(best) == len(told) - 3
    kept, given = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (run / "checkpoints" / f"step-{best['step']}", run / "adapter")
    )
    assert all(kept[name].equal(given[name]) for name in given)
    assert not (run / "adapter" / "trainer.pt").exists()


def test_a_row_that_cannot_be_read_is_told_with_its_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "poisoned", [*ROWS[:2], {"messages": []}, *ROWS[2:]])
    assert finish_here(run) == 1
    [error] = metrics(run, "error")
    assert (error["code"], error["message"]) == ("invalid_training_file", "Line 3: no messages")


@pytest.mark.parametrize(
    ("rows", "hyperparameters", "code"),
    [
        (
            [{"messages": [*ROWS[0]["messages"][:1], {**ROWS[0]["messages"][1], "weight": 0}]}],
            {},
            "no_trainable_tokens",
        ),
        (None, {"learning_rate": 1e30, "max_grad_norm": 1e9, "max_steps": 5}, "loss_not_finite"),
        (None, {"learning_rate": 1e30, "warmup_ratio": 0.0, "max_steps": 1}, "loss_not_finite"),
        (None, {"warmup_ratio": 1.0, "max_steps": 1}, "adapter_changes_nothing"),
        (None, {"lora_r": 1 << 50}, "out_of_memory"),
    ],
    ids=[
        "nothing to learn",
        "a loss that is no number",
        "one that would be after the last step",
        "no step counts",
        "more than the CPU's memory",
    ],
)
def test_a_failure_that_was_foreseen_is_told_with_its_code(
    tmp_path: Path, rows: list[dict[str, Any]] | None, hyperparameters: dict[str, Any], code: str
) -> None:
    run = make_run(tmp_path / "failing", rows, **hyperparameters)
    assert finish_here(run) == 1
    assert metrics(run, "error")[-1]["code"] == code
    assert not (run / "adapter").exists()
