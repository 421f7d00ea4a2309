"""What of a request goes to the engine, and as what."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.inference.chat_request import ChatRequest, engine_body, template_kwargs
from app.inference.patterns import of_length
from tests.inference.schema_tables import closed, string
from tests.rows import target

ENGINE: dict[str, Any] = {"engine_name": "adapter_1", "cache_salt": "salt", "context_length": 100}
MESSAGES = [{"role": "user", "content": "Hi"}]


def asked(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "loam/demo", "messages": MESSAGES, **fields})


def body_of(**fields: Any) -> dict[str, Any]:
    return engine_body(asked(**fields), **ENGINE, can_limit_thoughts=True)


def test_the_engine_gets_its_own_name_for_the_model_and_a_salt_per_organisation() -> None:
    body = body_of()
    assert (body["messages"], body["model"], body["cache_salt"]) == (MESSAGES, "adapter_1", "salt")


def test_a_clients_own_salt_keeps_some_of_its_organisations_prompts_apart() -> None:
    salts = [
        engine_body(asked(cache_salt=own), **{**ENGINE, "cache_salt": orgs}, can_limit_thoughts=True)["cache_salt"]
        for own in ("mine", "yours")
        for orgs in ("salt", "another's")
    ]
    assert len({"salt", "mine", *salts}) == 6
    assert body_of(cache_salt="mine")["cache_salt"] == salts[0]
    assert body_of(cache_salt=None)["cache_salt"] == "salt"


@pytest.mark.parametrize("salt", ["", 5, "x" * 1025])
def test_what_engines_take_for_no_salt_is_refused(salt: Any) -> None:
    with pytest.raises(ValidationError):
        asked(cache_salt=salt)


@pytest.mark.parametrize(
    "options", [{}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": False}}]
)
def test_every_answer_is_streamed_from_the_engine_and_counts_as_it_goes(options: dict[str, Any]) -> None:
    assert body_of(**options)["stream"] is True
    assert body_of(**options)["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


def test_a_developer_speaks_as_the_system_that_templates_know() -> None:
    messages = [{"role": "developer", "content": "Be kind."}, *MESSAGES]
    assert body_of(messages=messages)["messages"] == [{"role": "system", "content": "Be kind."}, *MESSAGES]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_is_cut_to_the_context(name: str) -> None:
    assert body_of(**{name: 7})[name] == 7
    assert body_of(**{name: 10**9})[name] == 100


@pytest.mark.parametrize(
    "field",
    [
        "chat_template",
        "documents",
        "mm_processor_kwargs",
        "logits_processors",
        "vllm_xargs",
        "prompt_embeds",
        "kv_transfer_params",
        "add_generation_prompt",
        "priority",
        "request_id",
        "user",
        "extra_body",
    ],
)
def test_what_is_not_on_the_list_never_reaches_an_engine(field: str) -> None:
    assert field not in body_of(**{field: {"x": "{{ 1/0 }}"}})


def test_a_schema_is_sent_as_an_engine_can_hold_it() -> None:
    asked_for = {"type": "json_schema", "json_schema": {"name": "s", "schema": string(maxLength=5), "strict": True}}
    sent = {"name": "s", "schema": string(pattern=of_length(0, 5)), "strict": True}
    assert body_of(response_format=asked_for)["response_format"]["json_schema"] == sent
    assert body_of(response_format={"type": "json_object"})["response_format"] == {"type": "json_object"}


def test_a_functions_parameters_are_too_and_without_any_it_takes_none() -> None:
    tools = [{"name": "f", "parameters": closed(a=string(maxLength=5))}, {"name": "g"}, {"name": "h", "parameters": {}}]
    body = body_of(tools=[{"type": "function", "function": tool} for tool in tools])
    nothing = {"type": "object", "properties": {}, "additionalProperties": False}
    sent = [closed(a=string(pattern=of_length(0, 5))), nothing, nothing]
    assert [tool["function"]["parameters"] for tool in body["tools"]] == sent


@pytest.mark.parametrize(
    ("fields", "kwargs"),
    [
        ({}, {}),
        ({"chat_template_kwargs": {"enable_thinking": False}}, {"enable_thinking": False}),
        ({"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}, {"enable_thinking": False}),
        ({"thinking_mode": "no_think"}, {"enable_thinking": False}),
        ({"thinking_mode": "think"}, {"enable_thinking": True}),
        ({"thinking_mode": "as you like"}, {}),
        ({"thinking_budget": 100}, {}),
        ({"chat_template_kwargs": {"thinking_budget": 100}}, {"thinking_budget": 100}),
        (
            {
                "chat_template_kwargs": {"enable_thinking": True},
                "extra_body": {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
            },
            {"enable_thinking": True, "thinking": False},
        ),
        ({"chat_template_kwargs": {"chat_template": "{{ 1/0 }}", "tools": []}}, {}),
        ({"chat_template_kwargs": {"enable_thinking": {"x": 1}}}, {}),
        ({"extra_body": {"chat_template_kwargs": "x"}}, {}),
    ],
)
def test_the_template_gets_known_words_only(fields: dict[str, Any], kwargs: dict[str, Any]) -> None:
    assert template_kwargs(asked(**fields)) == kwargs


@pytest.mark.parametrize(
    ("fields", "budget"),
    [
        ({}, None),
        ({"thinking_budget": 7}, 7),
        ({"thinking_token_budget": 0}, 0),
        ({"extra_body": {"thinking_budget": 7}}, 7),
        ({"thinking_budget": 7, "extra_body": {"thinking_budget": 8}}, 7),
        ({"thinking_budget": 10**12}, 100),
        ({"thinking_budget": -1}, None),
        ({"thinking_budget": True}, None),
        ({"thinking_budget": "much"}, None),
    ],
)
def test_a_thought_is_given_as_many_tokens_as_were_asked_for_it(fields: dict[str, Any], budget: int | None) -> None:
    assert body_of(**fields).get("thinking_token_budget") == budget


def test_an_engine_that_cannot_end_a_thought_is_not_asked_to() -> None:
    body = engine_body(asked(thinking_budget=7), **ENGINE, can_limit_thoughts=False)
    assert "thinking_token_budget" not in body
    parsers = {None: False, "openai_gptoss": False, "qwen3": True, "deepseek_r1": True}
    model = target().model
    specs = {parser: model.model_copy(update={"reasoning_parser": parser}) for parser in parsers}
    assert {parser: spec.can_limit_thoughts for parser, spec in specs.items()} == parsers
