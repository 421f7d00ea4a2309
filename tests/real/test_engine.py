"""The real vLLM behind the gateway."""

import json
import signal
from collections.abc import Iterator

import httpx
import pytest

from tests.eventually import until
from tests.real.engines import count_generated, count_running, engine_processes
from tests.servers import Server

pytestmark = pytest.mark.engine

QUESTION = {"role": "user", "content": "What is the capital of France?"}
ANSWER = "The capital of France is Paris."
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ENDLESS = {"ignore_eos": True, "max_tokens": 4000, "messages": [QUESTION]}
IDLE_SECONDS = 2


@pytest.fixture
def http(real: Server) -> Iterator[httpx.Client]:
    """With the key of a new organisation."""
    with httpx.Client(base_url=real.url, headers=real.new_org().headers, timeout=180) as client:
        yield client


def chat(http: httpx.Client, **fields: object) -> httpx.Response:
    body = {"model": "loam/demo", "temperature": 0, "messages": [QUESTION], **fields}
    return http.post("/v1/chat/completions", json=body)


def stream_lines(http: httpx.Client, **fields: object) -> list[str]:
    body = {"model": "loam/demo", "temperature": 0, "stream": True, "messages": [QUESTION], **fields}
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        return [line for line in response.iter_lines() if line]


def count_charged_tokens(http: httpx.Client) -> int:
    usage = http.get("/api/v1/balance/usage").json()
    return int(usage["last_30_days"]["token_count"])


def test_the_demo_model_answers_in_plain_english(http: httpx.Client) -> None:
    answer = chat(http)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["choices"][0]["message"]["content"] == ANSWER
    assert body["model"] == "loam/demo"
    assert body["selected_gpu"] == "CPU"
    assert body["usage"]["completion_tokens"] > 0


def test_a_stream_says_the_same_in_pieces_and_tells_usage_once(http: httpx.Client) -> None:
    lines = stream_lines(http, stream_options={"include_usage": True})
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    text = "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"])
    assert text == ANSWER
    assert [bool(chunk.get("usage")) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_a_tool_call_comes_back_as_one(http: httpx.Client) -> None:
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    message = chat(http, messages=messages, tools=[WEATHER]).json()["choices"][0]
    assert message["finish_reason"] == "tool_calls"
    call = message["message"]["tool_calls"][0]["function"]
    assert call["name"] == "get_weather"
    assert isinstance(json.loads(call["arguments"])["city"], str)


def test_a_json_schema_is_enforced(http: httpx.Client) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Rome", "Oslo"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}}
    content = chat(http, response_format=wanted, max_tokens=50).json()["choices"][0]["message"]["content"]
    assert json.loads(content)["city"] in ("Rome", "Oslo")


def test_several_answers_come_with_log_probabilities(http: httpx.Client) -> None:
    choices = chat(http, n=2, logprobs=True, top_logprobs=3, max_tokens=4).json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1]
    assert all(len(choice["logprobs"]["content"][0]["top_logprobs"]) == 3 for choice in choices)


def test_a_prompt_longer_than_the_context_is_a_400_with_the_code_that_clients_know(http: httpx.Client) -> None:
    answer = chat(http, messages=[{"role": "user", "content": "word " * 6000}])
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_a_response_is_answered_streamed_and_continued(http: httpx.Client) -> None:
    body = {"model": "loam/demo", "input": "What is the capital of Italy?", "temperature": 0}
    first = http.post("/v1/responses", json=body).json()
    assert first["status"] == "completed"
    assert "Rome" in first["output_text"]
    more = {**body, "input": QUESTION["content"], "previous_response_id": first["id"], "stream": True}
    with http.stream("POST", "/v1/responses", json=more) as response:
        names = [line.removeprefix("event: ") for line in response.iter_lines() if line.startswith("event: ")]
    assert names[0] == "response.created"
    assert names[-1] == "response.completed"


def test_usage_is_charged_as_the_engine_counted_it(http: httpx.Client) -> None:
    usage = chat(http).json()["usage"]
    told = stream_lines(http, stream_options={"include_usage": True})[-2]
    streamed = json.loads(told.removeprefix("data: "))["usage"]
    assert count_charged_tokens(http) == usage["total_tokens"] + streamed["total_tokens"]


def test_a_client_that_leaves_ends_the_generation_and_pays_for_what_was_made(http: httpx.Client, real: Server) -> None:
    body = {"model": "loam/demo", "stream": True, **ENDLESS}
    charged_before, made_before = make_ready(http, real)
    with http.stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = answer.iter_lines()
        for _ in range(40):
            next(lines)
        assert count_running(real) == 1
    until(lambda: count_running(real) == 0, within_seconds=IDLE_SECONDS)
    charged = until(lambda: max(0, count_charged_tokens(http) - charged_before), within_seconds=IDLE_SECONDS)
    assert 19 < charged <= count_generated(real) - made_before < 4000


def test_a_client_that_will_not_wait_for_a_whole_answer_ends_and_pays_it_too(http: httpx.Client, real: Server) -> None:
    charged_before, made_before = make_ready(http, real)
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json={"model": "loam/demo", **ENDLESS}, timeout=2)
    until(lambda: count_running(real) == 0, within_seconds=IDLE_SECONDS)
    charged = until(lambda: max(0, count_charged_tokens(http) - charged_before), within_seconds=IDLE_SECONDS)
    assert 0 < charged <= count_generated(real) - made_before < 4000


def make_ready(http: httpx.Client, server: Server) -> tuple[int, int]:
    """The engine is up; what is charged from here on but for tokens made, and how many tokens are made already."""
    usage = chat(http, max_tokens=1).json()["usage"]
    return 2 * usage["prompt_tokens"] + 1, count_generated(server)


def test_an_engine_that_is_killed_gives_an_error_and_is_started_again(http: httpx.Client, real: Server) -> None:
    before = {process.pid for process in engine_processes(real)}
    lines = []
    body = {"model": "loam/demo", "stream": True, **ENDLESS}
    with http.stream("POST", "/v1/chat/completions", json=body) as answer:
        for line in answer.iter_lines():
            lines.append(line)
            if len(lines) == 10:
                engine_processes(real)[-1].send_signal(signal.SIGKILL)
    last = json.loads(next(line for line in reversed(lines) if line).removeprefix("data: "))
    assert last["error"]["type"] == "server_error"
    assert "data: [DONE]" not in lines
    until(lambda: not before & {process.pid for process in engine_processes(real)}, within_seconds=20)
    again = until(lambda: answered(http), within_seconds=120)
    assert again["choices"][0]["message"]["content"] == ANSWER


def answered(http: httpx.Client) -> dict[str, list[dict[str, dict[str, str]]]] | None:
    """The answer, or None where the client was asked to try again."""
    answer = chat(http)
    if answer.status_code == 503:
        assert int(answer.headers["retry-after"]) <= 60
        return None
    assert answer.status_code == 200, answer.text
    body: dict[str, list[dict[str, dict[str, str]]]] = answer.json()
    return body


def test_no_log_has_what_the_engine_was_asked(real: Server, http: httpx.Client) -> None:
    mark = "the-secret-of-the-house"
    asked = [{"role": "user", "content": mark}]
    too_long = [{"role": "user", "content": mark * 5000}]
    assert chat(http, messages=asked).status_code == 200
    assert stream_lines(http, messages=asked)
    assert chat(http, messages=too_long).status_code == 400
    assert chat(http, messages=asked, stop_token_ids=[10**12]).status_code in (200, 400, 503)
    logs = [real.log, *(path.read_text(errors="replace") for path in real.data_dir.glob("engines/*.log*"))]
    assert len(logs) > 1
    assert not [log for log in logs if mark in log]


def test_what_one_organisation_asked_is_in_no_others_cache(real: Server, http: httpx.Client) -> None:
    asked = [{"role": "user", "content": "A long secret that nobody may time. " * 20}]
    with httpx.Client(base_url=real.url, headers=real.new_org().headers, timeout=180) as other:
        asks = (chat(each, messages=asked, cache_salt="mine", max_tokens=1) for each in (http, http, other))
        told = [answer.json()["usage"] for answer in asks]
    cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in told]
    assert cached[1] > 0
    assert cached[2] <= cached[0]
