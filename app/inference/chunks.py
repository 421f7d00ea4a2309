"""The engine's stream of chunks, made the client's: bytes in, bytes out, the last usage kept.

A chunk's JSON is not parsed. The keys looked for cannot appear inside its strings, where quotes are escaped.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from app.billing.prices import Usage

DATA = b"data: "
DONE = b"data: [DONE]"
ERROR = b'data: {"error":'
USAGE = b'"usage":{'
NO_CHOICES = b'"choices":[]'
NULLS = (b',"token_ids":null', b',"stop_reason":null', b',"prompt_token_ids":null', b',"prompt_text":null')
# OpenAI's have a place for a refusal's tokens, and clients may look there.
LOGPROBS, LOGPROBS_AS_OPENAI = b'"logprobs":{"content":', b'"logprobs":{"refusal":null,"content":'
CHOICE = b'"choices":[{"index":'


class EngineError(Exception):
    """The engine told of an error inside its stream; `body` is the error as JSON."""

    def __init__(self, event: bytes) -> None:
        self.body = event.removeprefix(DATA)
        super().__init__(self.body.decode("utf-8", "replace")[:500])


class ChunkRewriter:
    """Feed it what the engine sends; it gives back whole events, the model renamed and usage as it was asked for."""

    def __init__(self, *, engine_name: str, client_name: str, keeps_final_usage: bool) -> None:
        self._from = b'"model":' + orjson.dumps(engine_name)
        self._to = b'"model":' + orjson.dumps(client_name)
        self._keeps_final_usage = keeps_final_usage
        self._rest = b""
        self._usages: dict[int | None, bytes] = {}
        self.is_done = False

    def feed(self, data: bytes) -> bytes:
        """The events that are complete now. Raises EngineError."""
        *events, self._rest = (self._rest + data).split(b"\n\n")
        return b"".join(self._rewrite(event) for event in events)

    @property
    def usage(self) -> Usage:
        """Of all choices, as far as they have come."""
        return total_usage({index: usage_of(orjson.loads(text)) for index, text in self._usages.items()})

    def _rewrite(self, event: bytes) -> bytes:
        if event.startswith(DONE):
            self.is_done = True
            return b""
        if event.startswith(ERROR):
            raise EngineError(event)
        start = event.rfind(USAGE)
        if start >= 0:
            end = _closing_brace(event, start + len(USAGE))
            self._usages[_choice_index(event)] = event[start + len(USAGE) - 1 : end]
            if NO_CHOICES in event:
                return self._renamed(event) if self._keeps_final_usage else b""
            event = event[: start - 1] + event[end:]  # with the comma before it
        return self._renamed(event)

    def _renamed(self, event: bytes) -> bytes:
        for null in NULLS:
            event = event.replace(null, b"")
        event = event.replace(LOGPROBS, LOGPROBS_AS_OPENAI)
        return event.replace(self._from, self._to, 1) + b"\n\n"


class ChunkReader:
    """The same stream, parsed, for who makes something else of it."""

    def __init__(self) -> None:
        self._rest = b""
        self._usages: dict[int | None, Usage] = {}
        self.is_done = False

    @property
    def usage(self) -> Usage:
        return total_usage(self._usages)

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The chunks that are complete now. Raises EngineError."""
        *events, self._rest = (self._rest + data).split(b"\n\n")
        return [chunk for event in events if (chunk := self._read(event))]

    def _read(self, event: bytes) -> dict[str, Any] | None:
        if event.startswith(DONE):
            self.is_done = True
        if event.startswith(ERROR):
            raise EngineError(event)
        if self.is_done or not event.startswith(DATA):
            return None
        chunk: dict[str, Any] = orjson.loads(event[len(DATA) :])
        if chunk.get("usage"):
            index = chunk["choices"][0]["index"] if chunk["choices"] else None
            self._usages[index] = usage_of(chunk["usage"])
        return chunk


def usage_of(counts: Mapping[str, Any]) -> Usage:
    """From the engine's `usage` object."""
    details = counts.get("prompt_tokens_details") or {}
    return Usage(
        prompt_tokens=counts.get("prompt_tokens") or 0,
        cached_tokens=details.get("cached_tokens") or 0,
        completion_tokens=counts.get("completion_tokens") or 0,
    )


def total_usage(usages: Mapping[int | None, Usage]) -> Usage:
    """A chunk counts the tokens of its own choice; only the last one, which has no choice (None), counts them all."""
    if None in usages:
        return usages[None]
    prompts = [(usage.prompt_tokens, usage.cached_tokens) for usage in usages.values()]
    prompt_tokens, cached_tokens = max(prompts, default=(0, 0))
    return Usage(prompt_tokens, cached_tokens, sum(usage.completion_tokens for usage in usages.values()))


def _choice_index(event: bytes) -> int | None:
    start = event.find(CHOICE) + len(CHOICE)
    return int(event[start : event.index(b",", start)]) if start >= len(CHOICE) else None


def _closing_brace(text: bytes, position: int) -> int:
    """The index after the brace that closes the one before `position`; usage holds no strings."""
    depth = 1
    while depth:
        close = text.index(b"}", position)
        depth += text.count(b"{", position, close) - 1
        position = close + 1
    return position
