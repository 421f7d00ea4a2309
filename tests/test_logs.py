"""What people and programs ask stays between them and the model: no log has it, whatever goes wrong."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from app.store.session import Store
from tests.asking import CHAT, JOBS, MODEL, TEN_STEPS, chat_body, jsonl, ok
from tests.eventually import until
from tests.inference.sockets import connected, turn
from tests.rows import chat_rows
from tests.servers import Server, TestOrg, running_server

MARK = "the-secret-of-the-house"
RESPONSES = "/v1/responses"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running_server(tmp_path, "--simulate", LOAM_LOG_LEVEL="debug", LOAM_SIMULATE_TRAINING_SECONDS="0.2") as server:
        yield server


def logs(server: Server) -> str:
    """The gateway's, the worker's, and those of engines and of runs."""
    files = [*server.data_dir.glob("engines/*.log*"), *server.data_dir.glob("runs/*/log.txt")]
    return "".join([server.log, *(path.read_text(errors="replace") for path in files)])


def ask_everything(client: httpx.Client) -> None:
    for words in ("", "[simulate: error]", "[simulate: error=2]"):
        for fields in ({}, {"stream": True}, {"padding": "x" * 70_000}):
            client.post(CHAT, json=chat_body(f"{words} {MARK}", **fields))
            client.post(RESPONSES, json={"model": MODEL, "input": f"{words} {MARK}", **fields})
    wrong = [
        chat_body(MARK, temperature=MARK),
        chat_body(MARK, model=MARK),
        chat_body(MARK, messages=[{"role": MARK, "content": MARK}]),
        chat_body(MARK, messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": MARK}}]}]),
        chat_body("word " * 9000 + MARK),
        chat_body(MARK, response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"not": MARK}}}),
    ]
    for body in wrong:
        assert client.post(CHAT, json=body).status_code >= 400
    assert client.post(CHAT, content=f'{{"{MARK}').status_code == 400
    assert client.post(RESPONSES, json={"model": MODEL, "input": [MARK]}).status_code == 400


def train_on_it(client: httpx.Client) -> None:
    for rows in (jsonl([*chat_rows(), {"messages": MARK}]), MARK.encode(), jsonl(marked_rows())):
        file_id = ok(client.post("/v1/files", files={"file": ("rows.jsonl", rows)}))["id"]
    body = {"model": MODEL, "training_file": file_id, "hyperparameters": TEN_STEPS}
    job_id = ok(client.post(JOBS, json=body))["id"]
    until(lambda: ok(client.get(f"{JOBS}/{job_id}"))["status"] == "succeeded")


def marked_rows() -> list[dict[str, object]]:
    asked, told = {"role": "user", "content": MARK}, {"role": "assistant", "content": MARK}
    return [{"messages": [asked, told]} for _ in range(10)]


async def turn_on_a_socket(server: Server, org: TestOrg) -> None:
    async with connected(server.url, org.headers) as socket:
        await turn(socket, MARK)
        await turn(socket, f"[simulate: error] {MARK}")


async def break_the_store(server: Server) -> None:
    """So that what should be stored is in an error."""
    store = Store(f"sqlite+aiosqlite:///{server.data_dir / 'loam.db'}")
    async with store.begin() as session:
        refuse = "BEGIN SELECT RAISE(ABORT, 'refused'); END"
        await session.execute(text(f"CREATE TRIGGER refuse BEFORE INSERT ON stored_responses {refuse}"))
    await store.close()


def test_no_log_has_a_prompt_or_a_key(server: Server) -> None:
    org = server.new_org()
    with httpx.Client(base_url=server.url, headers=org.headers, timeout=60) as client:
        ask_everything(client)
        train_on_it(client)
        asyncio.run(turn_on_a_socket(server, org))
        asyncio.run(break_the_store(server))
        assert client.post(RESPONSES, json={"model": MODEL, "input": MARK}).status_code >= 500
        assert client.post(CHAT, json=chat_body(f"[simulate: crash] {MARK}")).status_code >= 500
        client.get("/v1/models", headers={"Authorization": f"Bearer {org.key}x"})
    assert "engine error" in server.log
    assert "INSERT INTO stored_responses" in server.log
    assert MARK not in logs(server)
    assert org.key not in logs(server)


def test_a_log_that_is_asked_for_prompts_has_them_and_still_no_key(tmp_path: Path) -> None:
    with running_server(tmp_path, "--simulate", command="serve", LOAM_LOG_PROMPTS="true") as server:
        org = server.new_org()
        with httpx.Client(base_url=server.url, headers=org.headers, timeout=60) as client:
            for n in range(2):  # the long way and the short one
                ok(client.post(CHAT, json=chat_body(f"{MARK}-{n}")))
    assert all(f"{MARK}-{n}" in server.log for n in range(2))
    assert org.key not in server.log
