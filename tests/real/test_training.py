"""Real training on the demo model, and the result served by the real vLLM."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import orjson
import pytest
from openai.types.fine_tuning import FineTuningJob

from app.settings import ROOT
from tests.eventually import until
from tests.real.engines import worker_process
from tests.servers import Server, TestOrg

pytestmark = [pytest.mark.engine, pytest.mark.training, pytest.mark.timeout(400)]

DEMO = ROOT / "demo"
FINAL = ("succeeded", "failed", "cancelled")


@pytest.fixture
def org(real: Server) -> TestOrg:
    return real.new_org()


@pytest.fixture
def client(real: Server, org: TestOrg) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{real.url}/v1", api_key=org.key, max_retries=0, timeout=180) as client:
        yield client


def start_job(client: openai.OpenAI, **hyperparameters: Any) -> FineTuningJob:
    with (DEMO / "train.jsonl").open("rb") as file:
        uploaded = client.files.create(file=file, purpose="fine-tune")
    numbers: Any = {**orjson.loads((DEMO / "hyperparameters.json").read_bytes()), **hyperparameters}
    return client.fine_tuning.jobs.create(
        model="loam/demo", training_file=uploaded.id, suffix="real", extra_body={"hyperparameters": numbers}
    )


def events_of(client: openai.OpenAI, job_id: str) -> list[Any]:
    """Oldest first."""
    return list(client.fine_tuning.jobs.list_events(job_id, limit=100))[::-1]


def losses(events: list[Any]) -> list[float]:
    return [event.data["train_loss"] for event in events if event.event_type == "sft.progress"]


def ask(client: openai.OpenAI, model: str, question: str) -> str | None:
    messages: Any = [{"role": "user", "content": question}]
    answer = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=60)
    return answer.choices[0].message.content


def test_a_fine_tune_whose_worker_is_killed_goes_on_and_gives_the_trained_answers_and_is_charged(
    client: openai.OpenAI, real: Server, org: TestOrg
) -> None:
    questions = orjson.loads((DEMO / "questions.json").read_bytes())
    job = start_job(client)

    until(lambda: any(client.fine_tuning.jobs.checkpoints.list(job.id)), within_seconds=120)
    worker_process(real).send_signal(signal.SIGKILL)
    before = [ask(client, "loam/demo", q["question"]) for q in questions]  # meanwhile another goes on with the job
    done = until(lambda: finished(client, job.id), within_seconds=240)

    assert done.status == "succeeded", done.error
    events = events_of(client, job.id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    restarted = next(event for event in events if event.event_type == "sft.job_restarted")
    assert restarted.data["step"] > 0
    assert losses(events)[-1] < losses(events)[0] / 2

    assert done.fine_tuned_model is not None
    after = [ask(client, done.fine_tuned_model, q["question"]) for q in questions]
    assert after == [q["trained_answer"] for q in questions]
    assert all(old != new for old, new in zip(before, after, strict=True))
    assert [ask(client, "loam/demo", q["question"]) for q in questions] == before

    [charged] = httpx.get(f"{real.url}/v1/usage", headers=org.headers, params={"kind": "training"}).json()["data"]
    assert charged["trained_tokens"] > 0
    assert charged["gpu_seconds"] > 0


def test_a_cancelled_training_stops_within_seconds(client: openai.OpenAI, real: Server) -> None:
    job = start_job(client, n_epochs=1000)
    until(lambda: losses(events_of(client, job.id)), within_seconds=60)
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    until(lambda: not recipes_of(real, job.id), within_seconds=5)
    last = events_of(client, job.id)[-1]
    assert last.event_type == "sft.cancelled"
    with pytest.raises(openai.BadRequestError):
        client.fine_tuning.jobs.cancel(job.id)


def finished(client: openai.OpenAI, job_id: str) -> FineTuningJob | None:
    job = client.fine_tuning.jobs.retrieve(job_id)
    return job if job.status in FINAL else None


def recipes_of(server: Server, job_id: str) -> list[str]:
    """The recipes that run for a job."""
    children = worker_process(server).children(recursive=True)
    return [" ".join(p.cmdline()) for p in children if Path(job_id).name in " ".join(p.cmdline())]
