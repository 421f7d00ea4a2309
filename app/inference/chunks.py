"""The engine's stream of chunks, made the client's: bytes in, bytes out, the last usage kept.

A chunk's JSON is not parsed. The keys looked for cannot appear inside its strings, where quotes are escaped.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from app.billing.prices import Usage

DATA = b"data: "
DONE = b"data: [DONE]"
ERROR = b'data: {"error":'
NO_CHOICES = b'"choices":[]'
# OpenAI's have a place for a refusal's tokens, and clients may look there.
LOGPROBS, LOGPROBS_AS_OPENAI = b'"logprobs":{"content":', b'"logprobs":{"refusal":null,"content":'
CHOICE = b'"choices":[{"index":'
WITH_USAGE = b'"usage":{'
USAGE = re.compile(rb',"usage":(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
# What the client is not told in each chunk, with the comma before it.
DROPPED = re.compile(USAGE.pattern + rb'|,"(?:token_ids|stop_reason|prompt_token_ids|prompt_text)":null')


class EngineError(Exception):
    """The engine told of an error inside its stream; `body` is the error as JSON."""

    def __init__(self, event: bytes) -> None:
        self.body = event.removeprefix(DATA)
        super().__init__(self.body.decode("utf-8", "replace")[:500])


class ChunkRewriter:
    """Feed it what the engine sends; it gives back whole events, the model renamed and usage as it was asked for.

    All chunks that came together are rewritten together: that is what a chunk costs (see bench/).
    """

    def __init__(self, *, engine_name: str, client_name: str, n: int, keeps_final_usage: bool) -> None:
        self._from = b'"model":' + orjson.dumps(engine_name)
        self._to = b'"model":' + orjson.dumps(client_name)
        self._is_single = n == 1
        self._keeps_final_usage = keeps_final_usage
        self._rest = b""
        self._last = b""
        self._usages: dict[int | None, bytes] = {}
        self.is_done = False

    def feed(self, data: bytes) -> bytes:
        """The events that are complete now. Raises EngineError."""
        events = self._rest + data if self._rest else data
        end = len(events) if events.endswith(b"\n\n") else events.rfind(b"\n\n") + 2
        if end < 2:  # none is complete
            self._rest = events
            return b""
        events, self._rest = events[:end], events[end:]
        # These words may stand in a text too, where they only cost the longer way.
        if NO_CHOICES in events or DONE in events or ERROR in events:
            return b"".join([self._rewrite_one(event + b"\n\n") for event in events.split(b"\n\n")[:-1]])
        return self._rewrite(events)

    @property
    def usage(self) -> Usage:
        """Of all choices, as far as they have come."""
        self._note_usage(self._last)
        return total_usage({index: orjson.loads(text) for index, text in self._usages.items()})

    def _rewrite_one(self, event: bytes) -> bytes:
        if event.startswith(DONE):
            self.is_done = True
            return b""
        if event.startswith(ERROR):
            raise EngineError(event)
        if NO_CHOICES in event and CHOICE not in event:
            self._last = event
            return event.replace(self._from, self._to) if self._keeps_final_usage else b""
        return self._rewrite(event)

    def _rewrite(self, events: bytes) -> bytes:
        if self._is_single:
            self._last = events if WITH_USAGE in events else self._last  # parsed when it is asked for
        else:
            self._note_usage(events)
        kept = DROPPED.sub(b"", events).replace(LOGPROBS, LOGPROBS_AS_OPENAI)
        return kept.replace(self._from, self._to)

    def _note_usage(self, events: bytes) -> None:
        for event in events.split(b"\n\n"):
            if told := USAGE.search(event):
                self._usages[_choice_index(event)] = told[1]


class ChunkReader:
    """The same stream, parsed, for who makes something else of it."""

    def __init__(self) -> None:
        self._rest = b""
        self._counts: dict[int | None, Mapping[str, Any]] = {}
        self.is_done = False

    @property
    def usage(self) -> Usage:
        return total_usage(self._counts)

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The chunks that are complete now. Raises EngineError."""
        text = self._rest + data
        end = text.rfind(b"\n\n")
        if end < 0:
            self._rest = text
            return []
        self._rest = text[end + 2 :]
        chunks = self._parse(text[:end])
        for chunk in chunks:
            if chunk.get("usage"):
                self._counts[chunk["choices"][0]["index"] if chunk["choices"] else None] = chunk["usage"]
        return chunks

    def _parse(self, text: bytes) -> list[dict[str, Any]]:
        """All events at once, as one list: no line break is inside of them."""
        if ERROR in text:
            _raise_error(text)
        if text.endswith(DONE):
            self.is_done = True
            text = text[: -len(DONE)].rstrip(b"\n")
        if not text.startswith(DATA):
            return []
        chunks: list[dict[str, Any]] = orjson.loads(b"[%b]" % text[len(DATA) :].replace(b"\n\n" + DATA, b","))
        return chunks


def _raise_error(text: bytes) -> None:
    """Unless the words stand in a text."""
    for event in text.split(b"\n\n"):
        if event.startswith(ERROR):
            raise EngineError(event)


def usage_of(counts: Mapping[str, Any]) -> Usage:
    """From the engine's `usage` object."""
    details = counts.get("prompt_tokens_details") or {}
    return Usage(
        prompt_tokens=counts.get("prompt_tokens") or 0,
        cached_tokens=details.get("cached_tokens") or 0,
        completion_tokens=counts.get("completion_tokens") or 0,
        reasoning_tokens=(counts.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0,
    )


def total_usage(counts: Mapping[int | None, Mapping[str, Any]]) -> Usage:
    """Of `usage` objects by choice: a chunk counts the tokens of its own; only the last, which has none, counts all."""
    if None in counts:
        return usage_of(counts[None])
    usages = [usage_of(own) for own in counts.values()]
    prompt_tokens, cached_tokens = max(((each.prompt_tokens, each.cached_tokens) for each in usages), default=(0, 0))
    completion_tokens = sum(each.completion_tokens for each in usages)
    return Usage(prompt_tokens, cached_tokens, completion_tokens, sum(each.reasoning_tokens for each in usages))


def _choice_index(event: bytes) -> int | None:
    start = event.find(CHOICE) + len(CHOICE)
    return int(event[start : event.index(b",", start)]) if start >= len(CHOICE) else None
