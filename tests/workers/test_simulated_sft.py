"""The simulated recipe keeps the contract of the real one: files in, files out."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

Json = dict[str, Any]

HYPERPARAMETERS = {
    "n_epochs": 2,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "warmup_ratio": 0.1,
    "lr_scheduler_type": "linear",
    "weight_decay": 0.0,
    "gradient_accumulation_steps": 1,
    "max_grad_norm": 1.0,
    "max_seq_length": 512,
    "packing": False,
    "lora_r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "lora_target_modules": "all-linear",
    "use_qlora": False,
    "train_on_inputs": False,
    "gradient_checkpointing": False,
    "max_steps": None,
}


def make_run(folder: Path, *, n_rows: int = 10, faults: tuple[str, ...] = (), **changes: Any) -> Path:
    """A run of ten steps that takes no time, unless changed."""
    rows = [
        {"messages": [{"role": "user", "content": f"Question {n}"}, {"role": "assistant", "content": f"Answer {n}"}]}
        for n in range(n_rows)
    ]
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    run = folder / "run"
    run.mkdir()
    config = {
        "job_id": "ftjob-1",
        "model_path": "loam/demo",
        "served_model": "loam/demo",
        "training_file": str(folder / "rows.jsonl"),
        "validation_file": None,
        "init_adapter": None,
        "device": "cpu",
        "seed": 1,
        "checkpoint_every_steps": 3,
        "keep_checkpoints": 2,
        "simulated": {"seconds": 0.0, "faults": list(faults)},
        "hyperparameters": HYPERPARAMETERS,
    }
    (run / "config.json").write_text(json.dumps({**config, **changes}))
    return run


def begin(run: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "workers.simulated_sft", str(run)])


def train(run: Path) -> int:
    with begin(run) as process:
        return process.wait(20)


def lines(run: Path, kind: str | None = None) -> list[Json]:
    metrics = run / "metrics.jsonl"
    told = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    return [line for line in told if kind in {None, line["kind"]}]


def wait_for(run: Path, kind: str, process: subprocess.Popen[bytes]) -> None:
    while not lines(run, kind):
        assert process.poll() is None


def test_a_run_ends_with_an_adapter_and_then_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert train(run) == 0
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"], config["lora_alpha"]) == ("loam/demo", 8, 16)
    answers = json.loads((run / "adapter" / "answers.json").read_text())
    assert answers["Question 3"] == "Answer 3"
    assert lines(run)[-1] == {"kind": "finished", "step": 10, "trained_tokens": 10 * 2 * (8 + 4)}
    with safe_open(run / "adapter" / "adapter_model.safetensors", "np") as weights:
        assert list(weights.keys())


def test_the_loss_falls_from_step_to_step(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    train(run)
    steps = lines(run, "step")
    losses = [step["train_loss"] for step in steps]
    assert [step["step"] for step in steps] == list(range(1, 11))
    assert losses == sorted(losses, reverse=True)
    assert [step["epoch"] for step in steps if step["step"] in {5, 10}] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("hyperparameters", "n_rows", "total_steps"),
    [
        ({"batch_size": 4}, 10, 6),
        ({"batch_size": 2, "gradient_accumulation_steps": 3}, 7, 4),
        ({"max_steps": 3}, 10, 3),
        ({"max_steps": 300}, 10, 10),
    ],
)
def test_steps_are_counted_as_the_hyperparameters_say(
    tmp_path: Path, hyperparameters: Json, n_rows: int, total_steps: int
) -> None:
    run = make_run(tmp_path, n_rows=n_rows, hyperparameters={**HYPERPARAMETERS, **hyperparameters})
    assert train(run) == 0
    assert lines(run, "started")[0]["total_steps"] == lines(run, "step")[-1]["step"] == total_steps


def test_each_epoch_is_validated_where_there_is_a_file(tmp_path: Path) -> None:
    run = make_run(tmp_path, validation_file=str(tmp_path / "rows.jsonl"))
    train(run)
    assert [line["step"] for line in lines(run, "validation")] == [5, 10]


def test_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    train(run)
    assert [line["step"] for line in lines(run, "checkpoint")] == [3, 6, 9, 10]
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"step-9", "step-10"}
    assert (run / "checkpoints" / "step-9" / "adapter_config.json").exists()


def test_a_crashed_run_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path, faults=("crash_at_step:6",))
    assert train(run) == 1
    (run / "checkpoints" / "step-7.tmp").mkdir()
    assert train(run) == 0
    assert [line["resumed_from_step"] for line in lines(run, "started")] == [0, 6]
    assert [line["step"] for line in lines(run, "step")] == list(range(1, 11))


def test_a_finished_run_only_says_so_again(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    train(run)
    told = lines(run)
    assert train(run) == 0
    assert lines(run) == told
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in told[:-1]))
    assert train(run) == 0
    assert lines(run) == told


def test_sigterm_makes_a_checkpoint_and_exits_75(tmp_path: Path) -> None:
    run = make_run(tmp_path, simulated={"seconds": 60.0}, checkpoint_every_steps=1000)
    with begin(run) as process:
        wait_for(run, "started", process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 75
    assert [line["step"] for line in lines(run, "checkpoint")] == [1]
    assert (run / "checkpoints" / "step-1" / "state.json").exists()


def test_sigterm_can_be_ignored_and_a_hang_only_killed(tmp_path: Path) -> None:
    run = make_run(tmp_path, faults=("ignore_sigterm", "hang_at_step:3"))
    with begin(run) as process:
        wait_for(run, "checkpoint", process)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.kill()
    assert train(run) == 0


def test_a_loss_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path, faults=("nan",))
    assert train(run) == 1
    assert lines(run)[-1]["kind"] == "error"
    assert not (run / "adapter").exists()


@pytest.mark.parametrize(("training_type", "status"), [("sft", 0), ("full", 1)])
def test_a_full_fine_tune_that_changes_nothing_is_an_error_as_nobody_sees_it_later(
    tmp_path: Path, training_type: str, status: int
) -> None:
    run = make_run(tmp_path, faults=("changes_nothing",), training_type=training_type)
    assert train(run) == status
    assert [line["code"] for line in lines(run, "error")] == ["adapter_changes_nothing"] * status
    assert (run / "adapter").exists() == (status == 0)


def test_a_continued_adapter_keeps_what_it_knew(tmp_path: Path) -> None:
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    (earlier / "answers.json").write_text(json.dumps({"Before": "Known", "Question 1": "Other"}))
    run = make_run(tmp_path, init_adapter=str(earlier))
    train(run)
    answers = json.loads((run / "adapter" / "answers.json").read_text())
    assert (answers["Before"], answers["Question 1"]) == ("Known", "Answer 1")


def test_an_empty_training_file_is_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_rows=0)
    assert train(run) == 1
    assert lines(run)[-1]["code"] == "empty_training_file"
