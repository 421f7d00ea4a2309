"""What a chat body means to the simulated engine, and when it refuses one: in vLLM's words."""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

Json = dict[str, Any]

PIECE = re.compile(r"\s?\w{1,12}|\s?[^\w\s]|\s")
DIRECTIVE = re.compile(r"\[simulate:\s*(\w+)(?:=(\d+(?:\.\d+)?))?\s*\]")


class Refusal(Exception):
    """An error body as vLLM writes it."""

    def __init__(self, message: str, *, param: str | None = None, kind: str = "BadRequestError", status: int = 400):
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}}


@dataclass(frozen=True)
class ChatRequest:
    """One chat body with vLLM's defaults filled in; `max_tokens` already fits the context."""

    model: str | None
    messages: list[Json]
    prompt: list[str]
    max_tokens: int
    n: int = 1
    stop: tuple[str, ...] = ()
    keep_stop: bool = False
    ignore_eos: bool = False
    top_logprobs: int | None = None
    tools: list[Json] = field(default_factory=list)
    tool_choice: Any = "none"
    response_format: Json = field(default_factory=dict)
    thinks: bool = False
    thinking_token_budget: int | None = None
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    stream_interval: int = 1
    cache_salt: str = ""
    question: str = ""
    directives: Mapping[str, float | None] = field(default_factory=dict)


def question_of(messages: list[Json]) -> str:
    """The last thing the user said."""
    return next((text_of(m.get("content")) for m in reversed(messages) if m.get("role") == "user"), "")


def directives_of(question: str) -> dict[str, float | None]:
    """`[simulate: pace=20] [simulate: crash]` -> {"pace": 20.0, "crash": None}."""
    return {name: float(value) if value else None for name, value in DIRECTIVE.findall(question)}


def text_of(content: object) -> str:
    """A message's content as one string: a string, or the text parts of a list."""
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def pieces(text: str) -> list[str]:
    """The tokens of a text: they concatenate to it."""
    return PIECE.findall(text)


def token_id(piece: str) -> int:
    return zlib.crc32(piece.encode("utf-8", "surrogatepass")) % 151_936


def prompt_of(messages: list[Json], tools: list[Json] | None) -> list[str]:
    """The tokens of a conversation as ChatML, tools first."""
    turns = [("system", orjson.dumps(tools).decode())] if tools else []
    for message in messages:
        calls = orjson.dumps(message["tool_calls"]).decode() if message.get("tool_calls") else ""
        texts = [text_of(message.get(name)) for name in ("reasoning", "content")]
        turns.append((str(message.get("role")), "".join(texts) + calls))
    tokens: list[str] = []
    for role, text in turns:
        tokens += ["<|im_start|>", role, "\n", *pieces(text), "<|im_end|>", "\n"]
    return [*tokens, "<|im_start|>", "assistant", "\n"]


def parse_body(raw: bytes) -> Json:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Refusal(f"1 validation error:\n  JSON decode error: {error}", kind="Bad Request", param="body") from error
    if not isinstance(body, dict):
        raise Refusal("1 validation error:\n  Input should be an object", kind="Bad Request", param="body")
    return body


def parse_chat(body: Json, max_model_len: int, faults: Mapping[str, float | None]) -> ChatRequest:
    """Raises Refusal where vLLM would. `faults` are directives that every request carries."""
    messages, tools = messages_of(body), tools_of(body)
    stream_options = body.get("stream_options") or {}
    if stream_options and not body.get("stream"):
        raise Refusal("Stream options can only be defined when `stream=True`.", param="stream_options")
    prompt = prompt_of(messages, tools)
    include_usage = bool(stream_options.get("include_usage"))
    stop = body.get("stop") or []
    return ChatRequest(
        model=body.get("model"),
        messages=messages,
        prompt=prompt,
        max_tokens=max_tokens_of(body, len(prompt), max_model_len),
        n=whole_number(body, "n", default=1, least=1),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        keep_stop=bool(body.get("include_stop_str_in_output")),
        ignore_eos=bool(body.get("ignore_eos")),
        top_logprobs=top_logprobs_of(body),
        tools=tools,
        tool_choice=tool_choice_of(body, tools),
        response_format=body.get("response_format") or {},
        thinks=bool((body.get("chat_template_kwargs") or {}).get("enable_thinking")),
        thinking_token_budget=body.get("thinking_token_budget"),
        stream=bool(body.get("stream")),
        include_usage=include_usage,
        continuous_usage=include_usage and bool(stream_options.get("continuous_usage_stats")),
        stream_interval=whole_number(body, "stream_interval", default=1, least=1),
        cache_salt=str(body.get("cache_salt") or ""),
        question=question_of(messages),
        directives={**faults, **directives_of(question_of(messages))},
    )


def messages_of(body: Json) -> list[Json]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(m, dict) and "role" in m for m in messages):
        message = "1 validation error:\n  Field required: messages, a list of objects with a role"
        raise Refusal(message, kind="Bad Request", param="body.messages")
    return messages


def tools_of(body: Json) -> list[Json]:
    tools = body.get("tools")
    if tools == []:
        text = "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely."
        raise Refusal(text, param="tools")
    for tool in tools or []:
        if not isinstance(tool, dict) or not isinstance(tool.get("function"), dict) or "name" not in tool["function"]:
            raise Refusal(
                "1 validation error:\n  Field required: function.name", kind="Bad Request", param="body.tools"
            )
    return tools or []


def tool_choice_of(body: Json, tools: list[Json]) -> Any:
    choice = body.get("tool_choice") or ("auto" if tools else "none")
    if choice == "none":
        return choice
    if not tools:
        raise Refusal("When using `tool_choice`, `tools` must be set.", param="tool_choice")
    if isinstance(choice, dict):
        name = (choice.get("function") or {}).get("name")
        if name not in [tool["function"]["name"] for tool in tools]:
            text = "The tool specified in `tool_choice` does not match any of the specified `tools`"
            raise Refusal(text, param="tool_choice")
    elif choice not in {"auto", "required"}:
        supported = 'Only named tools, "none", "auto" or "required" are supported.'
        text = f"Invalid value for `tool_choice`: {choice}! {supported}"
        raise Refusal(text, param="tool_choice")
    return choice


def top_logprobs_of(body: Json) -> int | None:
    """None: no logprobs wanted."""
    top = whole_number(body, "top_logprobs", default=0, least=0)
    if top and not body.get("logprobs"):
        raise Refusal("when using `top_logprobs`, `logprobs` must be set to true.", param="top_logprobs")
    return top if body.get("logprobs") else None


def max_tokens_of(body: Json, prompt_tokens: int, max_model_len: int) -> int:
    """What is asked for, cut to what the context has left."""
    name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    asked = whole_number(body, name, default=max_model_len, least=1)
    if asked > max_model_len:
        text = f"{name}={asked} cannot be greater than {max_model_len=}. Please request fewer output tokens."
        raise Refusal(text, param=name)
    if prompt_tokens >= max_model_len:
        text = (
            f"This model's maximum context length is {max_model_len} tokens. However, your prompt contains "
            f"{prompt_tokens} input tokens, which exceeds this limit even without any output tokens. "
            "Please reduce the length of the input prompt."
        )
        raise Refusal(text, param="input_tokens")
    return min(asked, max_model_len - prompt_tokens)


def whole_number(body: Json, name: str, *, default: int, least: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or value < least:
        raise Refusal(f"{name} must be at least {least}, got {value!r}.", param=name)
    return value
