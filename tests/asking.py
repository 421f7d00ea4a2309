"""What tests of the API ask again and again."""

from pathlib import Path
from typing import Any

import orjson
from httpx import AsyncClient, Response

from app.billing.ledger import Entry, append, balance_micros, list_entries
from app.settings import Settings
from app.store.session import Store
from app.store.tables import LedgerEntry
from tests.eventually import eventually
from tests.rows import chat_rows
from tests.servers import Server, TestOrg

Json = dict[str, Any]

MODEL = "loam/demo"
CHAT = "/v1/chat/completions"
JOBS = "/v1/fine_tuning/jobs"
FINAL = ("succeeded", "failed", "cancelled")
TEN_STEPS = {"n_epochs": 1, "batch_size": 1}


def jsonl(rows: list[Json] | None = None) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in rows or chat_rows())


def chat_body(text: str = "Hello there", **fields: Any) -> Json:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}


async def chat(client: AsyncClient, text: str = "Hello there", **fields: Any) -> Json:
    return ok(await client.post(CHAT, json=chat_body(text, **fields)))


async def stream(client: AsyncClient, text: str = "Hello there", **fields: Any) -> list[Json]:
    """The events of a streamed chat."""
    response = await client.post(CHAT, json=chat_body(text, stream=True, **fields))
    assert response.status_code == 200, response.text
    return events_of(response)


def events_of(response: Response) -> list[Json]:
    """Without the [DONE] that has to be there."""
    assert response.headers["content-type"].startswith("text/event-stream")
    *data, done = data_lines(response.text)
    assert done == "[DONE]"
    return [orjson.loads(line) for line in data]


def data_lines(text: str) -> list[str]:
    return [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]


def ok(response: Response) -> Json:
    assert response.status_code == 200, response.text
    body: Json = response.json()
    return body


def refused(response: Response, status: int, *, param: str | None = None, code: str | None = None) -> Json:
    """The one error body, with what it must say."""
    assert response.status_code == status, response.text
    body: Json = response.json()
    assert set(body) - {"troubleshooting"} == {"detail", "error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["detail"] == body["error"]["message"] != ""
    assert (body["error"]["param"], body["error"]["code"]) == (param, code)
    assert response.headers["x-request-id"].startswith("req_")
    return body


async def upload(client: AsyncClient, content: bytes | None = None, **form: str) -> Json:
    files = {"file": ("rows.jsonl", jsonl() if content is None else content)}
    return ok(await client.post("/v1/files", data={"purpose": "fine-tune", **form}, files=files))


async def create_job(client: AsyncClient, **fields: Any) -> Json:
    """On a new file of ten rows, in ten steps, unless `fields` say otherwise."""
    file_id = fields.pop("training_file", None) or (await upload(client))["id"]
    body = {"model": MODEL, "training_file": file_id, "hyperparameters": TEN_STEPS, **fields}
    return ok(await client.post(JOBS, json=body))


async def job_in(client: AsyncClient, job_id: str, *statuses: str) -> Json:
    """The job, once it is in one of these states."""

    async def look() -> Json | None:
        job = ok(await client.get(f"{JOBS}/{job_id}"))
        assert job["status"] in statuses or job["status"] not in FINAL, job
        return job if job["status"] in statuses else None

    found = await eventually(look)
    assert found
    return found


async def trained(client: AsyncClient, **fields: Any) -> Json:
    """A new job that has succeeded."""
    return await job_in(client, (await create_job(client, **fields))["id"], "succeeded")


async def ledger_of(server: Server, client: AsyncClient, kind: str) -> list[LedgerEntry]:
    """The charges of one kind of the client's organisation."""
    org_id = ok(await client.get("/v1/balance/current"))["organization_id"]
    store = Store(Settings(data_dir=server.data_dir).store_url)
    async with store.read() as session:
        entries = await list_entries(session, org_id)
    await store.close()
    return [entry for entry in entries if entry.kind == kind]


async def spend_everything(server: Server, org: TestOrg, *, but_micros: int = 0) -> None:
    await leave_funds(server, org.id, but_micros)


async def leave_funds(server: Server, org_id: str, micros: int) -> None:
    """So much, whatever there was."""
    store = Store(Settings(data_dir=server.data_dir).store_url)
    async with store.begin() as session:
        change = micros - await balance_micros(session, org_id)
        source = f"left:{org_id}:{micros}"
        await append(session, Entry(org_id=org_id, source=source, kind="credit", amount_micros=change))
    await store.close()


def stored_files(server: Server) -> set[Path]:
    return set((server.data_dir / "files").iterdir())
