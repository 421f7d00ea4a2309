"""A chat completion as it is asked, and the part of it that goes to the engine.

What is named here is forwarded; everything else is ignored, so that no field reaches an engine unknown to us.
"""

import hmac
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator

from app.inference.bounds import FUNCTION_NAME, MAX_MESSAGES, MAX_TOOLS
from app.inference.messages import for_engine as message_for_engine
from app.inference.schema_for_engine import for_engine

# An answer that nobody reads as it comes need not come token by token: that costs the engine a good part of its time.
INTERVAL, WHOLE_INTERVAL = "stream_interval", 16

TEMPLATE_KEYS = frozenset({"enable_thinking", "thinking", "reasoning_effort", "thinking_budget"})

NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}

# A wrong one is passed over: clients send it to whatever model they talk to.
TokenBudget = Annotated[Any, WithJsonSchema({"type": "integer", "minimum": 0})]
THINKING_BUDGETS = ("thinking_budget", "thinking_token_budget")

Penalty = Annotated[float, Field(ge=-2, le=2)]
ShortText = Annotated[str, Field(min_length=1, max_length=1024)]


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class EngineFields(BaseModel):
    """OpenAI's fields and vLLM's own sampling fields, within bounds."""

    model_config = ConfigDict(extra="ignore", strict=True)

    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_MESSAGES)]
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=1024)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    response_format: dict[str, Any] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: ShortText | Annotated[list[ShortText], Field(max_length=16)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    tools: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_TOOLS)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    top_k: Annotated[int, Field(ge=-1, le=1_000_000)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None
    stop_token_ids: Annotated[list[int], Field(max_length=128)] | None = None
    bad_words: Annotated[list[ShortText], Field(max_length=128)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @field_validator("response_format")
    @classmethod
    def is_known_format(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and value.get("type") not in ("text", "json_object", "json_schema"):
            raise ValueError("type must be text, json_object or json_schema")
        if value is not None and value["type"] == "json_schema":
            inner = value.get("json_schema")
            if not isinstance(inner, dict) or not isinstance(inner.get("schema"), dict):
                raise ValueError("json_schema must be an object with a name and a schema")
            if not isinstance(inner.get("name"), str) or not FUNCTION_NAME.fullmatch(inner["name"]):
                raise ValueError("json_schema.name must be 1 to 64 letters, digits, underscores or dashes")
            if not isinstance(inner.get("strict"), bool | None):
                raise ValueError("json_schema.strict must be true or false")
        return value


FORWARDED = frozenset(EngineFields.model_fields)


class ChatRequest(EngineFields):
    """POST /chat/completions."""

    model: str = Field(min_length=1, max_length=300)
    cache_salt: ShortText | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    gpu_preference: str | None = None
    thinking_mode: str | None = None
    thinking_budget: TokenBudget = None
    thinking_token_budget: TokenBudget = None
    extra_body: dict[str, Any] | None = None
    extra_headers: dict[str, Any] | None = None

    @property
    def streams(self) -> bool:
        return bool(self.stream)

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


def engine_body(
    asked: ChatRequest, *, engine_name: str, cache_salt: str, context_length: int, can_limit_thoughts: bool
) -> dict[str, Any]:
    """What the engine is sent: the allowed fields, its own name for the model, usage in every chunk."""
    given = asked.model_fields_set & FORWARDED
    body = {name: value for name in given if (value := getattr(asked, name)) is not None}
    body["model"] = engine_name
    body["messages"] = [message_for_engine(message) for message in asked.messages]
    if asked.tools:
        body["tools"] = [_tool_for_engine(tool) for tool in asked.tools]
    if asked.response_format:
        body["response_format"] = _format_for_engine(asked.response_format)
    body["cache_salt"] = salted(cache_salt, asked.cache_salt)
    for limit in ("max_tokens", "max_completion_tokens"):
        if limit in body:
            body[limit] = min(body[limit], context_length)
    if body.get("n", 1) > 1 and body.get("temperature") == 0:
        body |= {"temperature": 1.0, "top_k": 1}  # the same answers; engines refuse several greedy ones
    kwargs = template_kwargs(asked)
    body.pop("chat_template_kwargs", None)
    if kwargs:
        body["chat_template_kwargs"] = kwargs
    budget = thinking_budget(asked) if can_limit_thoughts else None
    if budget is not None:
        body["thinking_token_budget"] = min(budget, context_length)
    if not (asked.streams or asked.tools):  # calls are parsed from single tokens
        body[INTERVAL] = WHOLE_INTERVAL
    body["stream"] = True
    body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    return body


def salted(cache_salt: str, own: str | None) -> str:
    """One tenant's prompts must not be timed through another's cache; who asks may part their own too."""
    return cache_salt if own is None else hmac.digest(cache_salt.encode(), own.encode(), "sha256").hex()


def _format_for_engine(wanted: dict[str, Any]) -> dict[str, Any]:
    if wanted["type"] != "json_schema":
        return wanted
    inner = wanted["json_schema"]
    return {**wanted, "json_schema": {**inner, "schema": for_engine(inner["schema"])}}


def _tool_for_engine(tool: dict[str, Any]) -> dict[str, Any]:
    """Without parameters a function takes none; to an engine it would take anything, a number or a text too."""
    function = tool["function"]
    return {**tool, "function": {**function, "parameters": for_engine(function.get("parameters") or NO_PARAMETERS)}}


def template_kwargs(asked: ChatRequest) -> dict[str, Any]:
    """From the top level or a literal `extra_body`, by known key; `thinking_mode` is a word for one of them."""
    if not asked.model_fields_set & {"chat_template_kwargs", "extra_body", "thinking_mode"}:
        return {}
    inner = (asked.extra_body or {}).get("chat_template_kwargs")
    both = {**(inner if isinstance(inner, Mapping) else {}), **(asked.chat_template_kwargs or {})}
    kwargs = {key: value for key, value in both.items() if key in TEMPLATE_KEYS and isinstance(value, str | int | bool)}
    if asked.thinking_mode in ("no_think", "think"):
        kwargs["enable_thinking"] = asked.thinking_mode == "think"
    return kwargs


def thinking_budget(asked: ChatRequest) -> int | None:
    """After how many tokens a thought shall end, from the top level or a literal `extra_body`."""
    extra = asked.extra_body or {}
    given = [places.get(name) for places in (vars(asked), extra) for name in THINKING_BUDGETS]
    return next((tokens for tokens in given if type(tokens) is int and tokens >= 0), None)
