"""What the simulated engine says: the same request, the same answer, to the letter."""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, cycle, islice

import orjson

from app.engines.simulated_request import DIRECTIVE, ChatRequest, Json, pieces, text_of
from app.engines.simulated_schema import instance_of

OPENINGS = ("You said", "I read", "Your words were", "I was told")
EXCERPT_CHARS = 400


@dataclass(frozen=True)
class Adapter:
    """A loaded LoRA adapter; `answers` are the prompts it was trained on, if the simulated recipe made it.

    `weight`: all it consists of; one of 0 changes nothing, and with one that is no number no answer is one.
    `loaded_at`: after how many sleeps. One of before the last sleep has its name still, and no effect.
    """

    name: str
    path: str
    answers: Mapping[str, str]
    weight: float = 1.0
    loaded_at: int = 0


@dataclass(frozen=True)
class ToolCall:
    """One function call of an answer; the id is the same each time too."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Token:
    """A piece of an answer and the part of the message it belongs to: `reasoning`, `content` or `tool`."""

    part: str
    text: str


@dataclass(frozen=True)
class Answer:
    """One choice. A tool call's tokens are its arguments; its name is told before the first of them.

    `adapter`: the name of the one that had a part in it.
    """

    index: int
    tokens: list[Token]
    finish_reason: str
    adapter: str = ""
    stop_reason: str | None = None
    call: ToolCall | None = None

    def text(self, part: str) -> str:
        return "".join(token.text for token in self.tokens if token.part == part)

    @cached_property
    def reasoning_tokens(self) -> int:
        return sum(token.part == "reasoning" for token in self.tokens)


def answer(request: ChatRequest, index: int, *, adapter: Adapter | None, can_think: bool) -> Answer:
    """Choice `index` of a request, cut at its stop strings and its token limit."""
    call = tool_call(request, index)
    text, stop_reason = (call.arguments, None) if call else stopped(content(request, index, adapter), request)
    thinks = can_think and request.thinks
    thought = [Token("reasoning", piece) for piece in pieces(thoughts(request)) if thinks]
    thought = thought[: request.thinking_token_budget]
    said = [Token("tool" if call else "content", piece) for piece in pieces(text)]
    tokens, wanted = thought + said, wanted_tokens(request)
    if wanted is not None:
        tokens, stop_reason = (
            list(islice(chain(thought, cycle(said or [Token("content", " word")])), wanted)),
            None,
        )
    # An answer that was asked to go on for ever ends at its limit only.
    is_cut = len(tokens) > request.max_tokens or (request.ignore_eos and "tokens" not in request.directives)
    is_chosen = call is not None and not isinstance(request.tool_choice, dict)
    return Answer(
        index=index,
        tokens=tokens[: request.max_tokens],
        finish_reason="length" if is_cut else "tool_calls" if is_chosen else "stop",
        adapter=adapter.name if adapter else "",
        stop_reason=None if is_cut else stop_reason,
        call=call,
    )


def wanted_tokens(request: ChatRequest) -> int | None:
    """How long the answer must be, where the request says so."""
    if "tokens" in request.directives:
        return min(int(request.directives["tokens"] or 0), request.max_tokens + 1)
    return request.max_tokens if request.ignore_eos else None


def content(request: ChatRequest, index: int, adapter: Adapter | None) -> str:
    plain = plain_text(request, index, adapter)
    match request.response_format.get("type"):
        case "json_object":
            return orjson.dumps({"answer": plain}).decode()
        case "json_schema":
            return orjson.dumps(instance_of(request.response_format.get("json_schema", {}).get("schema"))).decode()
    return plain


def plain_text(request: ChatRequest, index: int, adapter: Adapter | None) -> str:
    """A trained answer where the adapter has one; otherwise what was said, said back."""
    if adapter and request.question in adapter.answers:
        return adapter.answers[request.question]
    return (f"[{adapter.name}] " if adapter else "") + echo(request, index)


def echo(request: ChatRequest, index: int) -> str:
    last = request.messages[-1] if request.messages else {}
    if last.get("role") == "tool":
        return f"The tool returned: {text_of(last.get('content'))}"
    said = DIRECTIVE.sub("", request.question).strip()[:EXCERPT_CHARS]
    again = f" ({index + 1})" if index >= len(OPENINGS) else ""
    return f'{OPENINGS[index % len(OPENINGS)]}{again}: "{said}". This answer is simulated.'


def thoughts(request: ChatRequest) -> str:
    said = DIRECTIVE.sub("", request.question).strip()[:EXCERPT_CHARS]
    return f'The user said "{said}". I will say it back.'


def stopped(text: str, request: ChatRequest) -> tuple[str, str | None]:
    """The text up to the first stop string, and which one it was."""
    found = [(text.find(stop), stop) for stop in request.stop if stop and stop in text]
    if not found:
        return text, None
    at, stop = min(found)
    return text[: at + len(stop) * request.keep_stop], stop


def tool_call(request: ChatRequest, index: int) -> ToolCall | None:
    function = called_function(request)
    if function is None:
        return None
    name = function["name"]
    arguments = orjson.dumps(instance_of(function.get("parameters") or {"type": "object"})).decode()
    return ToolCall(f"chatcmpl-tool-{zlib.crc32(f'{index}{name}{request.prompt}'.encode()):08x}", name, arguments)


def called_function(request: ChatRequest) -> Json | None:
    """The named one, the first one where one is required, or the one the question speaks of."""
    functions: list[Json] = [tool["function"] for tool in request.tools]
    match request.tool_choice:
        case {"function": {"name": name}}:
            return next(f for f in functions if f["name"] == name)
        case "required":
            return next((f for f in functions if is_mentioned(f["name"], request.question)), functions[0])
        case "auto" if request.messages and request.messages[-1].get("role") == "user":
            return next((f for f in functions if is_mentioned(f["name"], request.question)), None)
    return None


def is_mentioned(name: str, question: str) -> bool:
    """By its name or by a word of it: `get_weather` by "weather", not by "get"."""
    said = set(re.findall(r"\w+", question.lower()))
    words = re.findall(r"[a-z]+", re.sub(r"([A-Z])", r" \1", name).lower())
    return name.lower() in said or any(word in said for word in words if len(word) > 3)


def logprob_of(answer: Answer, token: str) -> float:
    """Between 0 and -2, the same each time, other for each choice and each adapter."""
    return -(zlib.crc32(f"{answer.adapter}{answer.index}{token}".encode("utf-8", "surrogatepass")) % 2000) / 1000
