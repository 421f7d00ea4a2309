"""Structured output and tool calls, held to by the real engine whatever its model would rather say."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.inference.schema_tables import HELD, INTEGER, array, closed, string
from tests.real.engines import engine_processes
from tests.servers import Server

pytestmark = pytest.mark.engine

WILD = {"temperature": 1.5, "max_tokens": 150, "messages": [{"role": "user", "content": "What is the weather?"}]}
WEATHER = closed(city=string(maxLength=20), days={"type": "integer", "minimum": 1, "maximum": 9})
# the engine refuses them itself, or fails while it compiles them: none of them may reach it
FATAL = [
    string(pattern="^[a-z]{1,5000}$"),
    string(minLength=-1),
    string(pattern=r"\bno\b"),
    array(items={}, minItems=2, uniqueItems=True),
    {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    {"type": "object", "properties": []},
]


@pytest.fixture
def http(real: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=real.url, headers=real.new_org().headers, timeout=180) as client:
        yield client


def ask(http: httpx.Client, **fields: Any) -> httpx.Response:
    return http.post("/v1/chat/completions", json={"model": "loam/demo", **WILD, **fields})


def schema_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def choice_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    choice: dict[str, Any] = answer.json()["choices"][0]
    return choice


def tool(name: str = "get_weather", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": "The weather", **fields}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def test_what_is_said_to_be_held_is_held(http: httpx.Client) -> None:
    def is_whole(schema: dict[str, Any]) -> bool:
        choice = choice_of(ask(http, response_format=schema_format(schema), seed=1))
        if choice["finish_reason"] == "length":
            return False
        Draft202012Validator(schema).validate(json.loads(choice["message"]["content"]))
        return True

    with ThreadPoolExecutor(8) as threads:
        n_whole = sum(threads.map(is_whole, HELD.values()))
    assert n_whole > len(HELD) / 2  # a number or a list without a bound need not come to an end


def test_what_would_break_the_compiler_is_a_400_and_the_engine_goes_on(http: httpx.Client, real: Server) -> None:
    ask(http, max_tokens=1)
    before = {process.pid for process in engine_processes(real)}
    for schema in FATAL:
        refused = ask(http, response_format=schema_format(schema))
        assert refused.status_code == 400, refused.text
        assert refused.json()["error"]["param"] == "response_format.json_schema.schema"
    assert choice_of(ask(http, max_tokens=1))
    assert {process.pid for process in engine_processes(real)} == before


def test_a_json_object_is_one(http: httpx.Client) -> None:
    answers = [choice_of(ask(http, response_format={"type": "json_object"}, seed=seed)) for seed in range(4)]
    whole = [c["message"]["content"] for c in answers if c["finish_reason"] == "stop"]
    assert whole
    assert all(isinstance(json.loads(text), dict) for text in whole)


def test_fields_of_the_engines_own_grammars_are_not_forwarded(http: httpx.Client) -> None:
    grammars = {"structured_outputs": {"regex": "^x$"}, "guided_regex": "^x$", "guided_choice": ["x"]}
    assert choice_of(ask(http, **grammars, max_tokens=5, seed=1))["message"]["content"] not in ("x", None)


@pytest.mark.parametrize("choice", ["required", named("get_weather")], ids=["required", "named"])
@pytest.mark.parametrize("strict", [True, None])
def test_a_forced_call_has_valid_arguments(http: httpx.Client, choice: Any, strict: bool | None) -> None:
    forced = {"tools": [tool(parameters=WEATHER, strict=strict)], "tool_choice": choice}
    answers = [choice_of(ask(http, **forced, temperature=0.1 * seed, seed=seed)) for seed in range(4)]
    functions = [answer["message"]["tool_calls"][0]["function"] for answer in answers]
    assert {function["name"] for function in functions} == {"get_weather"}
    whole = [function["arguments"] for function in functions if function["arguments"].rstrip().endswith("}")]
    assert whole  # white space between the arguments has no bound
    for arguments in whole:
        Draft202012Validator(WEATHER).validate(json.loads(arguments))


@pytest.mark.parametrize("choice", ["required", named("get_weather")], ids=["required", "named"])
def test_arguments_are_streamed_in_several_deltas_after_the_name(http: httpx.Client, choice: Any) -> None:
    body = {"tools": [tool(parameters=WEATHER)], "tool_choice": choice, "stream": True, "temperature": 0}
    lines = [line.removeprefix("data: ") for line in ask(http, **body).text.split("\n") if line.startswith("data: {")]
    deltas = [choice["delta"] for line in lines for choice in json.loads(line)["choices"]]
    functions = [call["function"] for delta in deltas for call in delta.get("tool_calls") or ()]
    assert [function["name"] for function in functions if function.get("name")] == ["get_weather"]
    arguments = [function["arguments"] for function in functions if function.get("arguments")]
    assert len(arguments) > 3
    Draft202012Validator(WEATHER).validate(json.loads("".join(arguments)))


def test_a_function_without_parameters_takes_none(http: httpx.Client) -> None:
    answer = choice_of(ask(http, tools=[tool("now")], tool_choice="required"))
    assert json.loads(answer["message"]["tool_calls"][0]["function"]["arguments"]) == {}


def test_what_is_not_enforced_of_a_function_that_is_not_strict_is_no_error(http: httpx.Client) -> None:
    loose = closed(
        a={"type": "string", "pattern": "(?!x)"},
        b=array(items=INTEGER, uniqueItems=True),
        c=string(maxLength=500),
    )
    for choice in ("auto", "required"):
        assert choice_of(ask(http, tools=[tool(parameters=loose)], tool_choice=choice))


def test_no_call_is_made_where_none_is_allowed(http: httpx.Client) -> None:
    answer = choice_of(ask(http, tools=[tool(parameters=WEATHER)], tool_choice="none"))
    assert not answer["message"].get("tool_calls")
