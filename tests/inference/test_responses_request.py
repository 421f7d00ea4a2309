"""What POST /responses takes, and what it refuses with the field's name."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.errors import APIError
from app.inference.responses_request import ResponseCreate

ASKED = {"model": "loam/demo", "input": "What is loam?"}
SCHEMA_FORMAT = {"type": "json_schema", "name": "soil", "schema": {"type": "object"}, "strict": True}


def request(**fields: Any) -> ResponseCreate:
    return ResponseCreate.model_validate({**ASKED, **fields})


def test_a_null_is_a_field_that_was_not_given() -> None:
    nulls = dict.fromkeys(ResponseCreate.model_fields.keys() - ASKED.keys())
    assert request(**nulls) == request()
    assert request(text={"format": None}, reasoning={"effort": None}) == request()


def test_unknown_fields_are_ignored() -> None:
    fields = {"made_up": 5, "stop_after_tool_calls": 1, "reasoning": {"summary": "auto", "x": 1}}
    assert request(**fields, text={"y": 1}) == request()


def test_a_literal_extra_body_stands_for_its_fields() -> None:
    extra = {"top_k": 5, "temperature": 0.1, "chat_template_kwargs": {"enable_thinking": False}}
    asked = request(temperature=0.9, extra_body=extra)
    assert (asked.top_k, asked.temperature) == (5, 0.9)
    assert asked.chat_template_kwargs == {"enable_thinking": False}


@pytest.mark.parametrize(
    ("fields", "limit"),
    [({"max_output_tokens": 7}, 7), ({"max_tokens": 8}, 8), ({"max_output_tokens": 7, "max_tokens": 8}, 7), ({}, None)],
)
def test_the_token_limit_has_two_names(fields: dict[str, Any], limit: int | None) -> None:
    assert request(**fields).token_limit == limit


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", ""),
        ("model", 1),
        ("temperature", 2.1),
        ("temperature", "hot"),
        ("temperature", True),
        ("top_p", 0),
        ("top_logprobs", 21),
        ("n", 0),
        ("n", 1000),
        ("best_of", 1000),
        ("max_output_tokens", 0),
        ("max_tokens", 1.5),
        ("seed", 2**64),
        ("stop", ["x"] * 17),
        ("tools", [{"type": "function", "name": "f"}] * 129),
        ("tools", "f"),
        ("stream", "yes"),
        ("metadata", {"k": 1}),
        ("metadata", {"k" * 65: "v"}),
        ("metadata", {str(i): "v" for i in range(17)}),
        ("reasoning", {"effort": "enormous"}),
        ("text", {"format": {"type": "xml"}}),
        ("truncation", "some"),
        ("include", "logprobs"),
    ],
)
def test_a_field_out_of_bounds_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        request(**{field: value})
    assert refused.value.errors()[0]["loc"][0] == field


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"text": {"format": {"type": "json_schema", "name": "soil"}}}, "text.format.schema"),
        ({"text": {"format": {**SCHEMA_FORMAT, "name": None}}}, "text.format.schema"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ],
)
def test_what_does_not_fit_together_or_is_not_here_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(APIError) as refused:
        request(**fields)
    assert (refused.value.status_code, refused.value.param) == (400, param)
