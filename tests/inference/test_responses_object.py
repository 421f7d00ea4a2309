"""The Response object holds what OpenAI's clients look for, and tells what was asked."""

from typing import Any

import pytest
from openai.types.responses import Response

from app.inference.responses_best_of import best_of
from app.inference.responses_object import new_response, usage_of
from app.inference.responses_request import ResponseCreate
from app.inference.responses_stream import finished_response

NULLABLE = {"error", "incomplete_details", "completed_at", "usage", "instructions", "previous_response_id"}
NULLABLE |= {"max_output_tokens", "max_tool_calls", "safety_identifier", "prompt_cache_key", "user"}
NUMBERS = {"temperature", "top_p", "presence_penalty", "frequency_penalty", "top_logprobs"}


def request(**fields: Any) -> ResponseCreate:
    return ResponseCreate.model_validate({"model": "loam/demo", "input": "hi", **fields})


def response(**fields: Any) -> dict[str, Any]:
    return new_response(request(**fields), response_id="resp_1", created_at=1700)


def choice(text: str, *logprobs: float) -> dict[str, Any]:
    tokens = [{"token": "t", "logprob": value, "bytes": [116], "top_logprobs": []} for value in logprobs]
    message = {"role": "assistant", "content": text}
    return {"index": 0, "message": message, "logprobs": {"content": tokens}, "finish_reason": "stop"}


def test_every_nullable_field_is_there_and_every_number_is_a_number() -> None:
    fresh = response()
    assert {name for name in NULLABLE if fresh[name] is not None} == set()
    assert all(isinstance(fresh[name], int | float) for name in NUMBERS)
    assert (fresh["store"], fresh["truncation"], fresh["parallel_tool_calls"]) == (True, "disabled", True)
    Response.model_validate(fresh)


def test_what_was_asked_is_told() -> None:
    asked: dict[str, Any] = {
        "instructions": "Brief.",
        "temperature": 0,
        "max_output_tokens": 5,
        "metadata": {"a": "b"},
        "store": False,
        "previous_response_id": "resp_0",
        "truncation": "auto",
        "user": "ann",
        "top_logprobs": 2,
        "parallel_tool_calls": False,
    }
    told = response(**asked)
    assert {name: told[name] for name in asked} == asked
    Response.model_validate(told)


@pytest.mark.parametrize(
    "wanted",
    [
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_schema", "name": "s", "schema": {"type": "object"}, "strict": True, "description": None},
    ],
)
def test_the_format_is_told_as_it_was_asked(wanted: dict[str, Any]) -> None:
    told = response(text={"format": wanted})
    assert told["text"]["format"] == wanted
    Response.model_validate(told)


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "look"},
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "look"}]},
    ],
)
def test_tools_and_their_choice_are_told_in_the_flat_form(choice: Any) -> None:
    nested = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    told = response(tools=[nested], tool_choice=choice)
    assert told["tool_choice"] == choice
    [tool] = told["tools"]
    assert (tool["name"], tool["parameters"], tool["strict"]) == ("look", {"type": "object"}, None)
    Response.model_validate(told)


def test_usage_without_details_counts_none() -> None:
    assert usage_of({"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": None}) == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 5,
    }


def test_the_best_of_several_samples_are_those_with_the_highest_mean_logprob() -> None:
    samples = [choice("long and sure", *[-0.2] * 9), choice("unsure", -3.0), choice("short", -0.3), choice("none")]
    asked = request(n=2, best_of=4)
    best = best_of(asked, {"choices": samples, "usage": {"prompt_tokens": 1, "completion_tokens": 40}})
    finished = finished_response(response(n=2, best_of=4), best)
    assert [item["content"][0]["text"] for item in finished["output"]] == ["long and sure", "short"]
    assert finished["usage"]["output_tokens"] == 40
    assert finished["output"][0]["content"][0]["logprobs"] == []
    Response.model_validate(finished)


def test_logprobs_of_the_best_stay_if_they_were_asked_for() -> None:
    best = best_of(request(best_of=2, top_logprobs=1), {"choices": [choice("a", -1.0), choice("b", -0.5)]})
    assert [(kept["index"], kept["message"]["content"]) for kept in best["choices"]] == [(0, "b")]
    assert best["choices"][0]["logprobs"]["content"][0]["logprob"] == -0.5
