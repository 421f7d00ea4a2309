"""No organisation learns of another's things: each route of the app, with another's id."""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from httpx import AsyncClient

from app.ids import new_id
from app.inference.responses_ids import item_id
from app.main import PREFIX, create_app
from app.settings import Settings
from tests.asking import CHAT, JOBS, MODEL, TEN_STEPS, jsonl, ok
from tests.eventually import until
from tests.inference.sockets import connected, turn
from tests.servers import Server

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Things:
    """Ids of one organisation's things; or ids like them, of nothing."""

    file_id: str
    job_id: str
    event_id: str
    checkpoint_id: str
    response_id: str
    item_id: str
    model_id: str

    @property
    def checkpoint_model(self) -> str:
        return f"{self.model_id}:ckpt-step-10"


# Which of an organisation's things a route's path names. A route without an entry fails the test below.
NAMED: dict[str, str | None] = {
    "POST /chat/completions": None,
    "POST /responses": None,
    "POST /responses/compact": None,
    "POST /responses/input_tokens": None,
    "GET /responses/{response_id}": "response_id",
    "DELETE /responses/{response_id}": "response_id",
    "POST /responses/{response_id}/cancel": "response_id",
    "GET /responses/{response_id}/input_items": "response_id",
    "POST /files": None,
    "GET /files": None,
    "GET /files/{file_id}": "file_id",
    "GET /files/{file_id}/content": "file_id",
    "DELETE /files/{file_id}": "file_id",
    "POST /fine_tuning/jobs": None,
    "GET /fine_tuning/jobs": None,
    "GET /fine_tuning/jobs/{job_id}": "job_id",
    "POST /fine_tuning/jobs/{job_id}/cancel": "job_id",
    "POST /fine_tuning/jobs/{job_id}/pause": "job_id",
    "POST /fine_tuning/jobs/{job_id}/resume": "job_id",
    "GET /fine_tuning/jobs/{job_id}/events": "job_id",
    "GET /fine_tuning/jobs/{job_id}/checkpoints": "job_id",
    "GET /fine_tuning/jobs/{job_id}/metrics": "job_id",
    "GET /fine_tuning/jobs/{job_id}/adapter": "job_id",
    "POST /fine_tuning/estimate": None,
    "POST /fine_tuning/preview": None,
    "GET /models": None,
    "GET /models/{model_id:path}": "model_id",
    "DELETE /models/{model_id:path}": "model_id",
    "GET /warmup/status/{model_id:path}": "model_id",
    "POST /warmup/{model_id:path}": "model_id",
    "POST /learning/files": None,
    "GET /learning/files": None,
    "GET /learning/files/{file_id}": "file_id",
    "DELETE /learning/files/{file_id}": "file_id",
    "POST /learning/jobs": None,
    "GET /learning/jobs": None,
    "GET /learning/jobs/{job_id}": "job_id",
    "GET /learning/jobs/{job_id}/status": "job_id",
    "GET /learning/jobs/{job_id}/config": "job_id",
    "GET /learning/jobs/{job_id}/events": "job_id",
    "GET /learning/jobs/{job_id}/metrics": "job_id",
    "GET /learning/jobs/{job_id}/timeline": "job_id",
    "POST /learning/jobs/{job_id}/start": "job_id",
    "POST /learning/jobs/{job_id}/cancel": "job_id",
    "GET /learning/models": None,
    "GET /learning/models/{model_id:path}": "model_id",
    "POST /sft/jobs": None,
    "GET /sft/jobs": None,
    "GET /sft/jobs/{job_id}": "job_id",
    "POST /sft/jobs/{job_id}/cancel": "job_id",
    "GET /sft/jobs/{job_id}/events": "job_id",
    "GET /sft/jobs/{job_id}/checkpoints": "job_id",
    "GET /files/{file_id}/jobs": "file_id",
    "GET /models/{model_id:path}/jobs": "model_id",
    "POST /pricing/preflight": None,
    "GET /balance/autumn-normalized": None,
    "GET /balance/current": None,
    "GET /balance/usage": None,
    "GET /balance/usage/windows": None,
    "GET /usage": None,
}
BASES = (PREFIX, "/api", "/v1")
FOR_OPERATORS = re.compile(r"/(admin|organization)/")  # other keys than these: tests/admin


def routes() -> Iterator[tuple[str, str]]:
    """Method and path, of every route at every prefix."""
    app = create_app(Settings(data_dir=Path("unused"), simulate=True))
    for route in app.routes:
        if isinstance(route, APIRoute) and not (route.path.endswith("/health") or FOR_OPERATORS.search(route.path)):
            for method in route.methods:
                yield method, route.path


def named(method: str, path: str) -> str | None:
    base = next(base for base in ("/api/inference/v1", *BASES) if path.startswith(f"{base}/"))
    return NAMED[f"{method} {path.removeprefix(base)}"]


def test_every_route_is_in_the_table() -> None:
    known = {f"{method} {path.removeprefix(PREFIX)}" for method, path in routes() if path.startswith(PREFIX)}
    assert known == set(NAMED)
    assert len(list(routes())) >= len(BASES) * len(NAMED)
    app = create_app(Settings(data_dir=Path("unused"), simulate=True))
    others = [str(getattr(route, "path", "")) for route in app.routes if not isinstance(route, APIRoute)]
    assert not [path for path in others if "{" in path]


@pytest.fixture(scope="module")
def theirs(simulated: Server) -> Things:
    """Everything that an organisation can have."""
    with httpx.Client(base_url=simulated.url, headers=simulated.new_org().headers, timeout=30) as client:
        file_id = ok(client.post("/v1/files", files={"file": ("rows.jsonl", jsonl())}))["id"]
        body = {"model": MODEL, "training_file": file_id, "hyperparameters": TEN_STEPS}
        job_id = ok(client.post(JOBS, json=body))["id"]
        response_id = ok(client.post("/v1/responses", json={"model": MODEL, "input": "Hi"}))["id"]
        until(lambda: ok(client.get(f"{JOBS}/{job_id}"))["status"] == "succeeded")
        return Things(
            file_id=file_id,
            job_id=job_id,
            event_id=ok(client.get(f"{JOBS}/{job_id}/events"))["last_id"],
            checkpoint_id=ok(client.get(f"{JOBS}/{job_id}/checkpoints"))["last_id"],
            response_id=response_id,
            item_id=ok(client.get(f"/v1/responses/{response_id}/input_items"))["last_id"],
            model_id=ok(client.get(f"{JOBS}/{job_id}"))["fine_tuned_model"],
        )


@pytest.fixture(scope="module")
def nobodys() -> Things:
    job_id = new_id("ftjob")
    kinds = {"file_id": "file", "event_id": "ftevent", "checkpoint_id": "ftckpt", "response_id": "resp"}
    ids = {name: new_id(kind) for name, kind in kinds.items()}
    return Things(
        **ids, job_id=job_id, item_id=item_id("message", ids["response_id"], "i", 0), model_id=f"ft:{MODEL}:{job_id}"
    )


@pytest.fixture
async def client(simulated: Server) -> AsyncIterator[AsyncClient]:
    """Somebody else."""
    async with AsyncClient(base_url=simulated.url, headers=simulated.new_org().headers, timeout=30) as client:
        yield client


async def test_anothers_id_in_a_path_is_answered_like_one_of_nothing(
    client: AsyncClient, theirs: Things, nobodys: Things
) -> None:
    tried = 0
    for method, path in routes():
        name = named(method, path)
        if name is None:
            continue
        place = re.compile(r"\{.*?\}")
        answers = [await client.request(method, place.sub(getattr(things, name), path)) for things in (theirs, nobodys)]
        assert [answer.status_code for answer in answers] == [404, 404], (method, path)
        assert same(answers, theirs, nobodys), (method, path)
        tried += 1
    assert tried >= len(BASES) * sum(name is not None for name in NAMED.values())


def same(answers: list[httpx.Response], theirs: Things, nobodys: Things) -> bool:
    """Byte for byte, but for the id; and in what the headers say."""
    first, second = [answer.text for answer in answers]
    for one, other in zip(vars(theirs).values(), vars(nobodys).values(), strict=True):
        first, second = first.replace(one, "ID"), second.replace(other, "ID")
    ours = [{k: v for k, v in a.headers.items() if k not in ("date", "x-request-id")} for a in answers]
    return first == second and "ID" in first and ours[0] == ours[1]


def asked_with(things: Things, own: Things) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Every other place where an id can be given."""
    job = {"model": MODEL, "training_file": own.file_id}
    hello = [{"role": "user", "content": "Hi"}]
    learning = {"model": MODEL, "training_type": "sft_offline", "training_file_id": own.file_id}
    validation = {"effective_config": {"data": {"validation_files": [things.file_id]}}}
    after, reference = {"after": things.event_id}, [{"type": "item_reference", "id": things.item_id}]
    return {
        "training_file": ("POST", JOBS, {"json": {**job, "training_file": things.file_id}}),
        "validation_file": ("POST", JOBS, {"json": {**job, "validation_file": things.file_id}}),
        "model of a job": ("POST", JOBS, {"json": {**job, "model": things.model_id}}),
        "checkpoint of a job": ("POST", JOBS, {"json": {**job, "model": things.checkpoint_model}}),
        "file of an estimate": ("POST", "/v1/fine_tuning/estimate", {"json": {**job, "training_file": things.file_id}}),
        "model of an estimate": ("POST", "/v1/fine_tuning/estimate", {"json": {**job, "model": things.model_id}}),
        "file of a preview": ("POST", "/v1/fine_tuning/preview", {"json": {**job, "training_file": things.file_id}}),
        "model of a preview": ("POST", "/v1/fine_tuning/preview", {"json": {**job, "model": things.model_id}}),
        "learning file": ("POST", "/api/learning/jobs", {"json": {**learning, "training_file_id": things.file_id}}),
        "learning validation": ("POST", "/api/learning/jobs", {"json": {**learning, "metadata": validation}}),
        "learning model": ("POST", "/api/learning/jobs", {"json": {**learning, "model": things.model_id}}),
        "file of an sft job": ("POST", "/api/sft/jobs", {"json": {"model": MODEL, "training_file": things.file_id}}),
        "cursor of learning events": ("GET", f"/api/learning/jobs/{own.job_id}/events", {"params": after}),
        "checkpoint of an adapter": (
            "GET",
            f"{JOBS}/{own.job_id}/adapter",
            {"params": {"checkpoint": things.checkpoint_id}},
        ),
        "model of a chat": ("POST", CHAT, {"json": {"model": things.model_id, "messages": hello}}),
        "checkpoint of a chat": ("POST", CHAT, {"json": {"model": things.checkpoint_model, "messages": hello}}),
        "engine's name": (
            "POST",
            CHAT,
            {"json": {"model": things.job_id.replace("ftjob-", "adapter_"), "messages": hello}},
        ),
        "model of a response": ("POST", "/v1/responses", {"json": {"model": things.model_id, "input": "Hi"}}),
        "previous response": (
            "POST",
            "/v1/responses",
            {"json": {"model": MODEL, "input": "Hi", "previous_response_id": things.response_id}},
        ),
        "item reference": ("POST", "/v1/responses", {"json": {"model": MODEL, "input": reference}}),
        "model of a background response": (
            "POST",
            "/v1/responses",
            {"json": {"model": things.model_id, "input": "Hi", "background": True}},
        ),
        "item to compact": ("POST", "/v1/responses/compact", {"json": {"model": MODEL, "input": reference}}),
        "conversation to compact": (
            "POST",
            "/v1/responses/compact",
            {"json": {"model": MODEL, "previous_response_id": things.response_id}},
        ),
        "model to compact with": (
            "POST",
            "/v1/responses/compact",
            {"json": {"model": things.model_id, "input": "Hi"}},
        ),
        "item to count": ("POST", "/v1/responses/input_tokens", {"json": {"model": MODEL, "input": reference}}),
        "conversation to count": (
            "POST",
            "/v1/responses/input_tokens",
            {"json": {"model": MODEL, "input": "Hi", "previous_response_id": things.response_id}},
        ),
        "model to count for": (
            "POST",
            "/v1/responses/input_tokens",
            {"json": {"model": things.model_id, "input": "Hi"}},
        ),
        "cursor of files": ("GET", "/v1/files", {"params": {"after": things.file_id}}),
        "cursor of jobs": ("GET", JOBS, {"params": {"after": things.job_id}}),
        "cursor of events": ("GET", f"{JOBS}/{own.job_id}/events", {"params": {"after": things.event_id}}),
        "cursor of an event stream": (
            "GET",
            f"{JOBS}/{own.job_id}/events",
            {"params": {"after": things.event_id, "stream": "true"}},
        ),
        "cursor of checkpoints": (
            "GET",
            f"{JOBS}/{own.job_id}/checkpoints",
            {"params": {"after": things.checkpoint_id}},
        ),
        "cursor of input items": (
            "GET",
            f"/v1/responses/{own.response_id}/input_items",
            {"params": {"after": things.item_id}},
        ),
    }


async def test_anothers_id_anywhere_else_is_answered_like_one_of_nothing(
    client: AsyncClient, theirs: Things, nobodys: Things
) -> None:
    file_id = ok(await client.post("/v1/files", files={"file": ("rows.jsonl", jsonl())}))["id"]
    job_id = ok(await client.post(JOBS, json={"model": MODEL, "training_file": file_id}))["id"]
    ok(await client.post(f"{JOBS}/{job_id}/cancel"))
    response_id = ok(await client.post("/v1/responses", json={"model": MODEL, "input": "Hi"}))["id"]
    own = Things(file_id, job_id, "", "", response_id, "", "")
    cases = zip(asked_with(theirs, own).items(), asked_with(nobodys, own).values(), strict=True)
    for (name, (method, path, given)), (_, _, empty) in cases:
        answers = [await client.request(method, path, **fields) for fields in (given, empty)]
        assert {answer.status_code for answer in answers} <= {400, 404}, (name, answers[0].text)
        first, second = [without_ids(answer.text) for answer in answers]
        assert first == second, name


async def test_anothers_id_on_a_socket_is_answered_like_one_of_nothing(
    simulated: Server, theirs: Things, nobodys: Things
) -> None:
    async with connected(simulated.url, simulated.new_org().headers) as socket:
        for given in (
            {"previous_response_id": "response_id"},
            {"model": "model_id"},
            {"model": "checkpoint_model"},
            {"input": "item_id"},
        ):
            [(field, name)] = given.items()
            told = []
            for things in (theirs, nobodys):
                thing: Any = getattr(things, name)
                value = [{"type": "item_reference", "id": thing}] if field == "input" else thing
                told.append(without_ids(str(await turn(socket, **{"asked": "Hi", "model": MODEL, field: value}))))
            assert "'type': 'error'" in told[0]
            assert told[0] == told[1], given


def without_ids(text: str) -> str:
    return re.sub(r"[0-9a-hjkmnp-tv-z]{26}", "ID", text)


async def test_no_list_shows_anothers_things(client: AsyncClient, theirs: Things) -> None:
    mine = ("files", "files?limit=10000", "fine_tuning/jobs", "models", "balance/usage", "balance/current")
    usage = ("usage?bucket=hour&group_by=key,model,kind", "usage?format=csv", f"usage?model={theirs.model_id}")
    compat = ("learning/jobs", "learning/models", "sft/jobs")
    for path in (f"/v1/{list_}" for list_ in (*mine, *usage, *compat)):
        text = (await client.get(path)).text
        assert not [thing for thing in vars(theirs).values() if thing in text], path
    assert ok(await client.get("/v1/balance/usage"))["last_30_days"]["token_count"] == 0
    assert not ok(await client.get("/v1/usage"))["data"]
    for asked in (f"file_id={theirs.file_id}", f"model={theirs.model_id}"):
        assert not ok(await client.get(f"/api/learning/jobs?{asked}"))["jobs"]


async def test_anothers_idempotency_key_is_not_ones_own(simulated: Server, client: AsyncClient) -> None:
    key, files = {"Idempotency-Key": "the same"}, {"file": ("rows.jsonl", jsonl())}
    mine = ok(await client.post("/v1/files", files=files, headers=key))
    async with AsyncClient(base_url=simulated.url, headers=simulated.new_org().headers) as other:
        assert ok(await other.post("/v1/files", files=files, headers=key))["id"] != mine["id"]
