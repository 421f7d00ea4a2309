"""What a user of the `synth-ai` package does; runs in that package's own environment, and prints JSON.

Each line of its input, NAME BASE_URL KEY FOLDER, is done in a process of its own, forked when the package, which takes
seconds, has been imported. FOLDER has rows.jsonl, and config.toml for the package's own job files; it is where the
process works, is at home, and leaves `out` and `err`. Its exit status is printed.
"""

import asyncio
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth_ai.api.train.cli import handle_sft
from synth_ai.api.train.sft import SFTJob
from synth_ai.cli.commands.status.client import StatusAPIClient
from synth_ai.cli.commands.status.config import BackendConfig
from synth_ai.http_client import HTTPError
from synth_ai.inference.client import InferenceClient
from synth_ai.jobs.client import JobsClient
from synth_ai.learning.client import LearningClient
from synth_ai.learning.health import backend_health, balance_autumn_normalized, pricing_preflight
from synth_ai.learning.jobs import JobHandle
from synth_ai.learning.sse import stream_events
from synth_ai.streaming import JobStreamer, StreamEndpoints

MODEL = "Qwen/Qwen3-0.6B"
NUMBERS = {"n_epochs": 1, "batch_size": 1, "sequence_length": 1024, "learning_rate": 1e-4, "train_kind": "peft"}
METADATA = {"effective_config": {"compute": {"gpu_type": "CPU", "gpu_count": 1}, "training": {"use_qlora": False}}}


@dataclass(frozen=True)
class User:
    base_url: str
    key: str
    folder: Path

    @property
    def rows(self) -> Path:
        return self.folder / "rows.jsonl"

    @property
    def learning(self) -> Any:
        return LearningClient(self.base_url, self.key)

    async def start(self) -> str:
        """A job that runs."""
        file_id = await self.learning.upload_training_file(self.rows)
        made = await self.learning.create_job(
            training_type="sft_offline",
            model=MODEL,
            training_file_id=file_id,
            hyperparameters=NUMBERS,
            metadata=METADATA,
        )
        for _ in range(2):
            assert (await self.learning.start_job(made["job_id"]))["id"] == made["id"]
        return str(made["job_id"])


async def train_and_chat(user: User) -> Any:
    events: list[Any] = []
    job_id = await user.start()
    job = await user.learning.poll_until_terminal(job_id, interval_seconds=0.2, on_event=events.append)
    question = json.loads(user.rows.read_text().splitlines()[0])["messages"][0]
    answer = await InferenceClient(user.base_url, user.key).create_chat_completion(
        model=job["fine_tuned_model"], messages=[question], thinking_mode="no_think"
    )
    return {
        "job": job,
        "events": await user.learning.get_events(job_id),
        "events while polling": events,
        "metrics": await user.learning.get_metrics(job_id, name="train.loss"),
        "timeline": await user.learning.get_timeline(job_id),
        "models": await user.learning.list_fine_tuned_models(),
        "answer": answer["choices"][0]["message"]["content"],
    }


async def follow(user: User) -> Any:
    job_id, told, points, lines = await user.start(), list[Any](), list[Any](), list[Any]()
    handle = JobHandle(user.base_url, user.key, job_id)
    end = await handle.poll_until_terminal(interval_seconds=0.2, on_event=told.append, on_metric=points.append)
    await stream_events(user.base_url, user.key, job_id, seconds=10, on_event=lines.append)
    return {"end": end, "told": told, "points": points, "lines": lines}


async def cancel(user: User) -> Any:
    job_id = await user.start()
    async with StatusAPIClient(BackendConfig(f"{user.base_url}/api/v1", user.key)) as status:
        cancelled = await status.cancel_job(job_id)
    streamer = JobStreamer(
        base_url=f"{user.base_url}/api",
        api_key=user.key,
        job_id=job_id,
        endpoints=StreamEndpoints.learning(job_id),
    )
    return {"cancelled": cancelled, "end": await streamer.stream_until_terminal()}


async def jobs_client(user: User) -> Any:
    async with JobsClient(user.base_url, user.key) as client:
        file = await client.files.upload(filename="rows.jsonl", content=user.rows.read_bytes(), purpose="fine-tune")
        job = await client.sft.create(
            training_file=file["id"], model=MODEL, hyperparameters=NUMBERS, suffix="mine", idempotency_key="once"
        )
        again = await client.sft.create(
            training_file=file["id"], model=MODEL, hyperparameters=NUMBERS, suffix="mine", idempotency_key="once"
        )
        await JobHandle(user.base_url, user.key, job["id"]).poll_until_terminal(interval_seconds=0.2)
        done = await client.sft.retrieve(job["id"])
        return {
            "file": await client.files.retrieve(file["id"]),
            "again": again["id"] == job["id"],
            "done": done,
            "succeeded": await client.sft.list(status="succeeded", model=MODEL, file_id=file["id"]),
            "failed": await client.sft.list(status="failed"),
            "of the file": await client.files.list_jobs(file["id"]),
            "of the model": await client.models.list_jobs(done["fine_tuned_model"]),
            "events": await client.sft.list_events(job["id"], since_seq=1),
            "checkpoints": await client.sft.checkpoints(job["id"]),
            "model": await client.models.retrieve(done["fine_tuned_model"]),
            "rl": await status_of(client.rl.list()),
        }


async def look_around(user: User) -> Any:
    job_id = await user.start()
    asked: dict[str, Any] = {"job_type": "sft", "gpu_type": "H100", "estimated_seconds": 3600, "container_count": 2}
    async with StatusAPIClient(BackendConfig(f"{user.base_url}/api/v1", user.key)) as status:
        return {
            "of all time": await status.list_jobs(created_after="2020-01-01T00:00:00"),
            "of tomorrow": await status.list_jobs(created_after="2999-01-01T00:00:00"),
            "status": await status.get_job_status(job_id),
            "config": await status.get_job_config(job_id),
            "timeline": await status.get_job_timeline(job_id),
            "events": await status.get_job_events(job_id),
            "files": await status.list_files(),
            "models": await status.list_models(),
            "health": await backend_health(user.base_url, user.key),
            "price": await pricing_preflight(user.base_url, user.key, **asked),
            "balance": await balance_autumn_normalized(user.base_url, user.key),
        }


def job_file(user: User) -> Any:
    job = SFTJob.from_config(user.folder / "config.toml", f"{user.base_url}/api", user.key)
    job.submit()
    return job.poll_until_complete(interval=0.2)


def command(user: User) -> Any:
    """`synth-ai train --type sft`, as the command calls it."""
    handle_sft(
        cfg_path=user.folder / "config.toml",
        backend_base=f"{user.base_url}/api",
        synth_key=user.key,
        dataset_override=None,
        allow_experimental=None,
        dry_run=False,
        poll=True,
        poll_timeout=60,
        poll_interval=0.2,
        stream_format="cli",
        examples_limit=None,
    )


async def status_of(call: Any) -> int:
    try:
        await call
    except HTTPError as error:
        return int(error.status)
    return 200


CALLS: dict[str, Callable[[User], Any]] = {
    call.__name__: call for call in (train_and_chat, follow, cancel, jobs_client, look_around, job_file, command)
}


def do(name: str, base_url: str, key: str, folder: str) -> None:
    os.chdir(folder)
    os.environ["HOME"] = folder
    for descriptor, path in ((1, "out"), (2, "err")):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    given = CALLS[name](User(base_url, key, Path(folder)))
    result = asyncio.run(given) if asyncio.iscoroutine(given) else given
    sys.stdout.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    for line in sys.stdin:
        child = multiprocessing.get_context("fork").Process(target=do, args=line.split())
        child.start()
        child.join()
        sys.stdout.write(f"{child.exitcode}\n")
        sys.stdout.flush()
