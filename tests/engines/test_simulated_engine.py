"""The simulated engine's routes: prompts, refusals, adapters, pace and faults."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.engines.simulated_client import CHAT, Json, chat, content, running, running_requests, stream, user

TOOL = {"type": "function", "function": {"name": "get_weather"}}


@pytest.fixture(scope="module")
def engine() -> Iterator[httpx.Client]:
    flags = ["--simulate-tokens-per-second", "0", "--reasoning-parser", "qwen3", "--max-lora-rank", "16"]
    with running(*flags) as (_, client, _):
        yield client


def write_adapter(folder: Path, *, rank: int = 8, answers: Json | None = None) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    if answers is not None:
        (folder / "answers.json").write_text(json.dumps(answers))
    return folder


def test_tokens_are_counted_as_they_are_in_a_chat(engine: httpx.Client) -> None:
    counted = engine.post("/tokenize", json={"messages": user("Hello there"), "return_token_strs": True}).json()
    assert counted["count"] == len(counted["tokens"]) == chat(engine)["usage"]["prompt_tokens"]
    assert "Hello there" in "".join(counted["token_strs"])
    assert counted["max_model_len"] == 2048


def test_a_prompt_is_cached_for_its_own_salt_only(engine: httpx.Client) -> None:
    def cached(salt: str) -> int:
        body = chat(engine, "one and the same long prompt " * 10, cache_salt=salt)
        tokens: int = body["usage"]["prompt_tokens_details"]["cached_tokens"]
        return tokens

    assert [cached("mine"), cached("mine"), cached("yours")] == [0, 64, 0]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "unknown"}, 404, "model"),
        ({"messages": user("word " * 3000)}, 400, "input_tokens"),
        ({"messages": "Hello"}, 400, "body.messages"),
        ({"max_tokens": 4000}, 400, "max_tokens"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"n": 0}, 400, "n"),
        ({"top_logprobs": 2}, 400, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options"),
        ({"tools": []}, 400, "tools"),
        ({"tools": [{"type": "function"}]}, 400, "body.tools"),
        ({"tool_choice": "auto"}, 400, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": "sometimes"}, 400, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"function": {"name": "other"}}}, 400, "tool_choice"),
    ],
)
def test_what_vllm_refuses_is_refused(engine: httpx.Client, fields: Json, status: int, param: str) -> None:
    response = engine.post(CHAT, json={"model": "base", "messages": user("Hello"), **fields})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, status, param)


def test_what_is_no_json_is_refused(engine: httpx.Client) -> None:
    assert engine.post(CHAT, content=b"{").status_code == 400


def test_an_adapter_answers_as_it_was_trained(engine: httpx.Client, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", answers={"Hello there": "General Kenobi"})
    loaded = engine.post("/v1/load_lora_adapter", json={"lora_name": "ada", "lora_path": str(folder)})
    assert loaded.text == "Success: LoRA adapter 'ada' added successfully."
    assert content(chat(engine, model="ada")) == "General Kenobi"
    assert content(chat(engine, "Hi", model="ada")).startswith("[ada] ")
    card = engine.get("/v1/models").json()["data"][1]
    assert (card["id"], card["root"], card["parent"]) == ("ada", str(folder), "base")
    again = engine.post("/v1/load_lora_adapter", json={"lora_name": "ada", "lora_path": str(folder)})
    assert (again.status_code, again.json()["error"]["type"]) == (400, "InvalidUserInput")
    assert engine.post("/v1/unload_lora_adapter", json={"lora_name": "ada"}).status_code == 200
    assert engine.post(CHAT, json={"model": "ada", "messages": user("Hi")}).status_code == 404


def test_an_adapter_that_cannot_be_loaded_is_not(engine: httpx.Client, tmp_path: Path) -> None:
    too_high = write_adapter(tmp_path / "high", rank=32)
    cases = {str(tmp_path / "missing"): 404, str(tmp_path): 404, str(too_high): 500, "": 400}
    for path, status in cases.items():
        assert engine.post("/v1/load_lora_adapter", json={"lora_name": "b", "lora_path": path}).status_code == status
    assert engine.post("/v1/unload_lora_adapter", json={"lora_name": "b"}).status_code == 404
    assert len(engine.get("/v1/models").json()["data"]) == 1


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_client_that_leaves_ends_its_answer(engine: httpx.Client, is_stream: bool) -> None:
    body = {"messages": user("[simulate: tokens=500] [simulate: pace=1]"), "stream": is_stream}
    with pytest.raises(httpx.ReadTimeout):
        engine.post(CHAT, json=body, timeout=0.3)
    while running_requests(engine):
        pass  # the suite's own limit ends this if it never comes


def test_a_running_answer_is_counted(engine: httpx.Client) -> None:
    body = {"messages": user("[simulate: hang]"), "stream": True}
    with engine.stream("POST", CHAT, json=body) as response:
        parts = response.iter_raw()
        assert next(parts)
        assert running_requests(engine) == 1


def test_an_answer_can_be_of_any_length(engine: httpx.Client) -> None:
    assert chat(engine, "[simulate: tokens=137]")["usage"]["completion_tokens"] == 137


def test_an_answer_keeps_its_pace(engine: httpx.Client) -> None:
    response = engine.post(CHAT, json={"messages": user("[simulate: tokens=20] [simulate: pace=100]")})
    assert response.elapsed.total_seconds() >= 0.19


def test_an_answer_can_be_slow_to_begin(engine: httpx.Client) -> None:
    response = engine.post(CHAT, json={"messages": user("[simulate: slow=0.2]")})
    assert response.elapsed.total_seconds() >= 0.2


@pytest.mark.parametrize("is_stream", [True, False])
def test_an_error_can_be_asked_for(engine: httpx.Client, is_stream: bool) -> None:
    response = engine.post(CHAT, json={"messages": user("[simulate: error]"), "stream": is_stream})
    assert (response.status_code, response.json()["error"]["type"]) == (500, "InternalServerError")


def test_an_error_can_come_in_mid_stream(engine: httpx.Client) -> None:
    *chunks, last = stream(engine, "[simulate: error=2]")
    assert len(chunks) == 3
    assert last["error"]["code"] == 500
