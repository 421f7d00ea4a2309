"""Fine-tuning through the API, on the simulated recipe: from the file to the answer that was trained."""

import csv
import io
from typing import Any

import pytest
from httpx import AsyncClient

from tests.asking import (
    CHAT,
    JOBS,
    MODEL,
    TEN_STEPS,
    chat,
    chat_body,
    create_job,
    events_of,
    job_in,
    ledger_of,
    ok,
    refused,
    spend_everything,
    trained,
    upload,
)
from tests.servers import Server

pytestmark = pytest.mark.anyio


async def test_a_job_ends_as_a_model_that_gives_the_trained_answer(quick: AsyncClient) -> None:
    created = await create_job(quick, suffix="mine")
    assert created["status"] == "queued"
    assert created["fine_tuned_model"] is None
    job = await job_in(quick, created["id"], "succeeded")
    assert job["fine_tuned_model"] == f"ft:{MODEL}:mine:{job['id']}"
    answer = (await chat(quick, "Question 3", model=job["fine_tuned_model"]))["choices"][0]["message"]["content"]
    assert answer == "Answer 3"
    assert (await chat(quick, "Question 3"))["choices"][0]["message"]["content"] != answer
    assert job["error"] is None
    assert job["finished_at"] >= job["started_at"] >= job["created_at"]


async def test_a_model_is_known_by_its_name_in_any_case_and_as_a_path(quick: AsyncClient) -> None:
    name = (await trained(quick))["fine_tuned_model"]
    for spelled in (name, name.upper(), name.replace("/", "%2F"), name.replace("/", "%2F").replace(":", "%3A")):
        assert ok(await quick.get(f"/v1/models/{spelled}"))["id"] == name
        assert ok(await quick.get(f"/api/warmup/status/{spelled}"))["status"] == "warmed"
    body = await chat(quick, model=name.upper())
    assert body["model"] == name.upper()


async def test_a_deleted_model_is_gone_from_everywhere(quick: AsyncClient) -> None:
    name = (await trained(quick))["fine_tuned_model"]
    assert name in ok(await quick.get("/v1/models"))["available_models"]
    assert ok(await quick.delete(f"/v1/models/{name}")) == {"id": name, "object": "model", "deleted": True}
    assert name not in (await quick.get("/v1/models")).text
    for response in (
        await quick.get(f"/v1/models/{name}"),
        await quick.delete(f"/v1/models/{name}"),
        await quick.post(CHAT, json=chat_body(model=name)),
    ):
        refused(response, 404, param="model", code="model_not_found")


async def test_events_are_numbered_without_gaps_and_tell_the_whole_story(quick: AsyncClient) -> None:
    validation = (await upload(quick))["id"]
    job = await trained(quick, validation_file=validation)
    events = events_of(await quick.get(f"{JOBS}/{job['id']}/events", params={"stream": "true"}))
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    steps = [event["data"]["step"] for event in events if event["event_type"] == "sft.progress"]
    assert steps == list(range(1, 11))
    told = [event["event_type"] for event in events if event["event_type"] not in ("sft.progress", "sft.checkpoint")]
    assert told == [
        "sft.created",
        "sft.training.started",
        "sft.validation.summary",
        "sft.training.finish",
        "workflow.completed",
    ]
    progress = next(event for event in events if event["event_type"] == "sft.progress")
    assert (progress["object"], progress["type"], progress["level"]) == ("fine_tuning.job.event", "metrics", "info")
    figures = {"step", "total_steps", "epoch", "train_loss", "train_mean_token_accuracy", "learning_rate"}
    assert figures <= set(progress["data"])


async def test_a_stream_of_events_ends_with_the_job_and_goes_on_after_a_cursor(quick: AsyncClient) -> None:
    job = await create_job(quick)
    url = f"{JOBS}/{job['id']}/events"
    live = events_of(await quick.get(url, headers={"Accept": "text/event-stream"}))
    assert live[-1]["event_type"] == "workflow.completed"
    # Committed before the event told of it.
    assert ok(await quick.get(f"{JOBS}/{job['id']}"))["fine_tuned_model"]
    rest = events_of(await quick.get(url, params={"stream": "true", "after": live[3]["id"]}))
    assert rest == live[4:]


async def test_pages_of_events_are_newest_first_and_miss_none(quick: AsyncClient) -> None:
    url = f"{JOBS}/{(await trained(quick))['id']}/events"
    everything = events_of(await quick.get(url, params={"stream": "true"}))
    pages: list[Any] = []
    params: dict[str, Any] = {"limit": 4}
    while True:
        page = ok(await quick.get(url, params=params))
        pages += page["data"]
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        if not page["has_more"]:
            break
        params["after"] = page["last_id"]
    assert pages == everything[::-1]
    assert ok(await quick.get(url, params={"order": "asc", "limit": 1}))["data"] == everything[:1]


async def test_an_openai_client_that_accepts_json_gets_a_page(quick: AsyncClient) -> None:
    url = f"{JOBS}/{(await trained(quick))['id']}/events"
    assert ok(await quick.get(url, headers={"Accept": "application/json"}))["object"] == "list"


async def test_every_checkpoint_can_be_chatted_with(quick: AsyncClient) -> None:
    job = await trained(quick)
    page = ok(await quick.get(f"{JOBS}/{job['id']}/checkpoints"))
    assert [point["step_number"] for point in page["data"]] == [10, 5]
    for point in page["data"]:
        assert point["fine_tuning_job_id"] == job["id"]
        name = point["fine_tuned_model_checkpoint"]
        assert name == f"{job['fine_tuned_model']}:ckpt-step-{point['step_number']}"
        body = await chat(quick, "Question 1", model=name)
        assert body["choices"][0]["message"]["content"] == "Answer 1"
    refused(
        await quick.post(CHAT, json=chat_body(model=f"{job['fine_tuned_model']}:ckpt-step-7")),
        404,
        param="model",
        code="model_not_found",
    )


async def test_training_can_go_on_from_a_fine_tuned_model(quick: AsyncClient) -> None:
    first = await trained(quick)
    other = b'{"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]}\n'
    file_id = (await upload(quick, other))["id"]
    second = await trained(quick, model=first["fine_tuned_model"], training_file=file_id)
    assert second["model"] == first["fine_tuned_model"]
    assert second["fine_tuned_model"].startswith(f"ft:{MODEL}:ftjob-")
    for question, answer in (("Who?", "Me."), ("Question 2", "Answer 2")):
        body = await chat(quick, question, model=second["fine_tuned_model"])
        assert body["choices"][0]["message"]["content"] == answer


async def test_result_files_are_the_metrics_as_csv(quick: AsyncClient) -> None:
    job = await trained(quick, validation_file=(await upload(quick))["id"])
    [file_id] = job["result_files"]
    assert ok(await quick.get(f"/v1/files/{file_id}"))["purpose"] == "fine-tune-results"
    rows = list(csv.DictReader(io.StringIO((await quick.get(f"/v1/files/{file_id}/content")).text)))
    assert [int(row["step"]) for row in rows] == list(range(1, 11))
    losses = [float(row["train_loss"]) for row in rows]
    assert losses == sorted(losses, reverse=True)
    assert [bool(row["valid_loss"]) for row in rows] == [False] * 9 + [True]


async def test_a_training_is_charged_once_by_token_and_by_gpu_second(quick_server: Server, quick: AsyncClient) -> None:
    job = await trained(quick)
    [charge] = await ledger_of(quick_server, quick, "training")
    assert charge.trained_tokens == job["trained_tokens"] > 0
    assert charge.gpu_seconds > 0
    tokens, hours = charge.trained_tokens, charge.gpu_seconds / 3600
    assert -charge.amount_micros == pytest.approx(tokens * 0.10 + hours * 0.10 * 1e6, abs=1)
    assert ok(await quick.get("/v1/balance/usage"))["current_month"]["token_count"] >= tokens


HYPERPARAMETERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"n_epochs": "auto", "batch_size": "auto"}, {"n_epochs": 10, "batch_size": 1}),
    ({"learning_rate_multiplier": 2}, {"learning_rate": 4e-4}),
    ({"learning_rate_multiplier": "auto", "learning_rate": 0.01}, {"learning_rate": 0.01}),
    ({"sequence_length": 64}, {"max_seq_length": 64}),
    ({"max_seq_length": 64}, {"max_seq_length": 64}),
    ({"lora_rank": 4}, {"lora_r": 4, "lora_alpha": 8}),
    ({"lora_r": 4, "lora_alpha": 7}, {"lora_r": 4, "lora_alpha": 7}),
    ({"train_steps": 3}, {"max_steps": 3}),
    ({"total_steps": 3}, {"max_steps": 3}),
    ({"lora_target_modules": ["q_proj", "v_proj"]}, {"lora_target_modules": ["q_proj", "v_proj"]}),
    ({"training_type": "sft", "n_epochs": 1}, {"n_epochs": 1}),
]


@pytest.mark.parametrize(("given", "used"), HYPERPARAMETERS)
@pytest.mark.parametrize("place", ["top", "method"])
async def test_hyperparameters_become_numbers(
    client: AsyncClient, given: dict[str, Any], used: dict[str, Any], place: str
) -> None:
    fields: dict[str, Any] = {"hyperparameters": given}
    if place == "method":
        inner = {name: value for name, value in given.items() if name != "training_type"}
        fields = {"method": {"type": "supervised", "supervised": {"hyperparameters": inner}}, "hyperparameters": None}
    job = await create_job(client, **fields)
    ok(await client.post(f"{JOBS}/{job['id']}/cancel"))
    assert {name: job["hyperparameters"][name] for name in used} == used
    assert "auto" not in job["hyperparameters"].values()
    assert job["method"]["supervised"]["hyperparameters"] == job["hyperparameters"]


REFUSED: list[tuple[str, Any]] = [
    ("n_epochs", 0),
    ("n_epochs", "many"),
    ("n_epochs", 1.5),
    ("batch_size", -1),
    ("learning_rate", 0),
    ("learning_rate", "fast"),
    ("learning_rate_multiplier", 0),
    ("warmup_ratio", 1.1),
    ("lr_scheduler_type", "zigzag"),
    ("weight_decay", -1),
    ("gradient_accumulation_steps", 0),
    ("max_grad_norm", 0),
    ("sequence_length", 1),
    ("max_seq_length", 1_000_000),
    ("lora_r", 0),
    ("lora_rank", 9999),
    ("lora_r", 128),  # the engine keeps room for 64
    ("lora_alpha", 0),
    ("lora_dropout", 1),
    ("lora_target_modules", []),
    ("use_qlora", True),  # needs CUDA
    ("packing", "perhaps"),
    ("max_steps", 0),
    ("bias", "all"),
    ("modules_to_save", ["lm_head"]),
    ("use_dora", True),
    ("made_up", 1),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
async def test_a_hyperparameter_that_cannot_be_is_refused_by_name(client: AsyncClient, name: str, value: Any) -> None:
    file_id = (await upload(client))["id"]
    fields = {"model": MODEL, "training_file": file_id}
    asked = {**fields, "hyperparameters": {name: value}}
    refused(await client.post(JOBS, json=asked), 400, param=f"hyperparameters.{name}")
    assert ok(await client.get(JOBS))["data"] == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"training_type": "rl"}, "training_type"),
        ({"method": {"type": "dpo", "dpo": {}}}, "method.type"),
        ({"hyperparameters": {"training_type": "dpo"}}, "hyperparameters"),
        ({"suffix": "a b"}, "suffix"),
        ({"suffix": "../../etc"}, "suffix"),
        ({"suffix": "a:b"}, "suffix"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "metadata"),
        ({"gpu_preference": 5}, "gpu_preference"),
        ({"training_file": None}, "training_file"),
        ({"model": None}, "model"),
    ],
)
async def test_what_is_wrong_with_a_job_is_named(client: AsyncClient, fields: dict[str, Any], param: str) -> None:
    body = {"model": MODEL, "training_file": "file-1", **fields}
    refused(await client.post(JOBS, json={k: v for k, v in body.items() if v is not None}), 400, param=param)


async def test_a_job_needs_funds(quick_server: Server) -> None:
    org = quick_server.new_org()
    await spend_everything(quick_server, org)
    async with AsyncClient(base_url=quick_server.url, headers=org.headers) as client:
        body = {"model": MODEL, "training_file": (await upload(client))["id"], "hyperparameters": TEN_STEPS}
        refused(await client.post(JOBS, json=body), 402, code="insufficient_quota")


async def test_metrics_are_told_as_curves(quick: AsyncClient) -> None:
    job = await trained(quick)
    told = ok(await quick.get(f"{JOBS}/{job['id']}/metrics", params={"name": "train.loss"}))
    assert told["job_id"] == job["id"]
    assert [point["step"] for point in told["points"]] == list(range(1, 11))
    refused(
        await quick.get(f"{JOBS}/ftjob-none/metrics"), 404, param="fine_tuning_job_id", code="fine_tuning_job_not_found"
    )
