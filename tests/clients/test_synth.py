"""The `synth-ai` package, unmodified, against a simulated server: its clients, its command, its job files."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.asking import jsonl
from tests.clients.synth_env import synth_python
from tests.rows import chat_rows
from tests.servers import Server, running_server

Calls = Callable[[str], str]

SCRIPT = Path(__file__).with_name("synth_calls.py")
QUICK = {
    "LOAM_POLL_SECONDS": "0.05",
    "LOAM_SIMULATE_TRAINING_SECONDS": "1",
    "LOAM_CHECKPOINT_EVERY_STEPS": "5",
}
CONFIG = """
[algorithm]
type = "offline"
method = "sft"
variety = "fft"

[job]
model = "Qwen/Qwen3-0.6B"
data = "{rows}"

[compute]
gpu_type = "A10G"
gpu_count = 1

[data]
validation_path = "{rows}"

[training]
mode = "lora"
use_qlora = false

[training.validation]
enabled = true
evaluation_strategy = "steps"
eval_steps = 5
save_best_model_at_end = true
metric_for_best_model = "val.loss"

[hyperparameters]
n_epochs = 1
train_kind = "peft"
per_device_batch = 2
gradient_accumulation_steps = 1
sequence_length = 1024
learning_rate = 5e-6
warmup_ratio = 0.03

[hyperparameters.parallelism]
use_deepspeed = true
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("synth"), "--simulate", **QUICK) as server:
        yield server


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    argv, home = [str(synth_python()), "-W", "ignore", str(SCRIPT)], tmp_path_factory.mktemp("home")
    env, pipe = {"PATH": os.environ["PATH"], "HOME": str(home)}, subprocess.PIPE
    with subprocess.Popen(argv, env=env, cwd=home, stdin=pipe, stdout=pipe, text=True, bufsize=1) as script:
        yield script


@pytest.fixture
def calls(server: Server, script: subprocess.Popen[str], tmp_path: Path) -> Calls:
    """Do one of the things of the script, as a new organisation; what it wrote."""
    (tmp_path / "rows.jsonl").write_bytes(jsonl())
    (tmp_path / "config.toml").write_text(CONFIG.format(rows=tmp_path / "rows.jsonl"))

    def call(name: str) -> str:
        assert script.stdin
        assert script.stdout
        script.stdin.write(f"{name} {server.url} {server.new_org().key} {tmp_path}\n")
        assert script.stdout.readline() == "0\n", (tmp_path / "err").read_text()[-3000:]
        return (tmp_path / "out").read_text()

    return call


def result(written: str) -> Any:
    return json.loads(written.splitlines()[-1])


def types(events: list[Any]) -> list[str]:
    return [event["type"] for event in events]


def test_train_with_the_learning_client_and_chat_with_the_result(calls: Calls) -> None:
    told = result(calls("train_and_chat"))
    job = told["job"]
    assert (job["status"], job["training_type"], job["error"]) == ("succeeded", "sft_offline", None)
    assert job["fine_tuned_model"] == f"ft:Qwen/Qwen3-0.6B:{job['id']}"
    assert job["metadata"]["effective_config"]["compute"] == {"gpu_type": "CPU", "gpu_count": 1}
    assert datetime.fromisoformat(job["updated_at"]) > datetime.fromisoformat(job["created_at"])
    assert [event["seq"] for event in told["events"]] == list(range(1, len(told["events"]) + 1))
    assert types(told["events"])[0] == "sft.created"
    assert {"sft.training.started", "sft.progress", "sft.training.finish"} < set(types(told["events"]))
    assert types(told["events"])[-1] == "workflow.completed"
    polled = told["events while polling"]  # the package stops at the final status, with or without the event of it
    assert polled == told["events"][: len(polled)]
    assert len(polled) >= len(told["events"]) - 1
    assert [point["step"] for point in told["metrics"]] == list(range(1, len(chat_rows()) + 1))
    assert [phase["phase"] for phase in told["timeline"]] == ["queued", "running", "publishing", "succeeded"]
    assert [(model["id"], model["status"]) for model in told["models"]] == [(job["fine_tuned_model"], "ready")]
    assert told["answer"] == chat_rows()[0]["messages"][1]["content"]


def test_a_job_is_followed_by_polling_and_by_stream(calls: Calls) -> None:
    told = result(calls("follow"))
    assert told["end"]["status"] == "succeeded"
    assert told["end"]["fine_tuned_model"].endswith(told["end"]["job_id"])
    steps = [point["step"] for point in told["points"] if point["name"] == "train.loss"]
    assert steps == list(range(1, len(chat_rows()) + 1))
    polled = [event for event in told["told"] if event["type"] != "job.status"]
    assert told["lines"] == polled


def test_a_cancelled_job_is_not_taken_for_a_failed_one(calls: Calls) -> None:
    told = result(calls("cancel"))
    assert told["cancelled"]["status"] == told["end"]["status"] == "cancelled"


def test_the_jobs_client_finds_its_files_jobs_and_models(calls: Calls) -> None:
    told = result(calls("jobs_client"))
    job = told["done"]
    assert told["again"]
    assert told["file"]["status"] == "ready"
    assert (job["status"], job["training_file"]) == ("succeeded", told["file"]["id"])
    assert job["fine_tuned_model"] == f"ft:Qwen/Qwen3-0.6B:mine:{job['id']}"
    for name in ("succeeded", "of the file", "of the model"):
        assert [found["id"] for found in told[name]["data"]] == [job["id"]], name
    assert told["failed"]["data"] == []
    assert told["events"]["events"][0]["seq"] == 2
    assert told["checkpoints"]["data"][0]["fine_tuning_job_id"] == job["id"]
    assert told["model"]["id"] == job["fine_tuned_model"]
    assert told["rl"] == 404


def test_the_status_commands_and_the_diagnostics_have_their_answers(calls: Calls) -> None:
    told = result(calls("look_around"))
    [job] = told["of all time"]
    assert told["of tomorrow"] == []
    assert told["status"]["job_id"] == told["config"]["job_id"] == job["job_id"]
    assert told["config"]["config"]["hyperparameters"]["max_seq_length"] == 1024
    assert told["timeline"][0]["phase"] == "queued"
    assert told["events"][0]["type"] == "sft.created"
    assert len(told["files"]) == 1
    assert told["models"] == []
    assert told["health"]["raw"] == {"status": "ok"}
    assert told["price"]["estimated_cost_cents"] == 790
    assert told["price"]["is_covered_by_balance"] is True
    assert told["balance"]["balance_cents"] == 10_000


def test_a_job_of_the_packages_own_job_file_succeeds(calls: Calls) -> None:
    job = result(calls("job_file"))
    assert job["status"] == "succeeded"
    assert job["validation_file"]
    assert (job["hyperparameters"]["batch_size"], job["hyperparameters"]["warmup_ratio"]) == (2, 0.03)


def test_the_train_command_streams_to_the_end(calls: Calls) -> None:
    out = calls("command")
    for line in ("✓ Training file ready", "✓ Job started", "train.loss", "val.loss", "Final status: succeeded"):
        assert line in out, out
