"""A chat completion's chunks as the events of a Response: a state machine without I/O.

The order is the one that `client.responses.stream()` enforces: an item is added, its part is added, deltas, the part
is done, the item is done; `sequence_number` counts from 0 without gaps.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from app import sse
from app.inference.responses_ids import item_id
from app.inference.responses_items import Item
from app.inference.responses_object import (
    CUT_SHORT,
    OPEN,
    Response,
    concluded,
    failed,
    is_final,
    logprobs_of,
    new_call,
    new_message,
    new_reasoning,
)
from app.inference.responses_open_item import OpenItem, Told
from app.inference.responses_sealing import Close, sealed

Event = dict[str, Any]

ENDINGS = ("stop", "tool_calls", "repetition", *CUT_SHORT)


def encode(event: Event) -> bytes:
    return sse.encode(event, event=event["type"])


def finished_response(
    response: Response,
    completion: Mapping[str, Any],
    *,
    seal: Close | None = None,
    clock: Callable[[], float] = time.time,
) -> Response:
    """The object after a whole chat completion: where its stream would have ended."""
    events = ResponseEvents(response, seal=seal, clock=clock)
    events.replay(completion)
    events.finish()
    return events.response


@dataclass
class _Answer:
    """One choice, as far as it has come."""

    open: OpenItem | None = None
    kinds: set[str] = field(default_factory=set)
    # Blanks before the first word: they may turn out to stand before a tool call, and be no message.
    held_text: str = ""
    held_logprobs: list[Any] = field(default_factory=list)
    finish_reason: str | None = None

    def is_writing(self, kind: str, call_index: int | None = None) -> bool:
        return self.open is not None and (self.open.kind, self.open.call_index) == (kind, call_index)

    def is_without_message(self) -> bool:
        """Every answer has a message, if only an empty one, unless it called a tool or was cut while thinking."""
        cut_in_thought = "reasoning" in self.kinds and self.finish_reason in CUT_SHORT
        return not (cut_in_thought or self.kinds & {"message", "function_call"})


class ResponseEvents:
    """Feed it chunks; it gives back events. `response` is the object as it stands, final after the last event.

    `seal`: what reasoning items are sealed with, if they shall be.
    """

    def __init__(
        self, response: Response, *, seal: Close | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.response = response
        self._seal = seal
        self._clock = clock
        self._sequence_number = 0
        self._output: list[Item] = []
        self._answers: dict[int, _Answer] = {}
        self._usages: dict[int | None, Mapping[str, Any]] = {}

    def queue(self) -> list[Event]:
        """Before `start`, where the response has to wait."""
        return [self._event(f"response.{word}", response=self.response) for word in ("created", "queued")]

    def start(self) -> list[Event]:
        created = [] if self.has_begun else [self._event("response.created", response=self.response)]
        self.response = {**self.response, "status": OPEN}
        return [*created, self._event("response.in_progress", response=self.response)]

    def feed(self, chunk: Mapping[str, Any]) -> list[Event]:
        """One parsed `chat.completion.chunk`."""
        choices = [] if self.is_over else chunk["choices"]
        if chunk.get("usage"):
            self._usages[choices[0]["index"] if choices else None] = chunk["usage"]
        return [event for choice in choices for event in self._advance(choice)]

    def replay(self, completion: Mapping[str, Any]) -> list[Event]:
        """A whole chat completion at once, as if it had been streamed."""
        events = [event for choice in completion["choices"] for event in self._advance(_as_delta(choice))]
        return [*events, *self.feed({"choices": [], "usage": completion.get("usage")})]

    def finish(self) -> list[Event]:
        """After the engine's last chunk. What the engine did not bring to an end is a failure."""
        if self.is_over:
            return []
        reasons = [answer.finish_reason for answer in self._answers.values()]
        if not reasons or any(reason not in ENDINGS for reason in reasons):
            return self.fail("The engine's answer broke off before its end.", "server_error")
        self.response = concluded(
            self.response, self._output, reasons=reasons, usage=self._usage(), completed_at=int(self._clock())
        )
        return [self._event(f"response.{self.response['status']}", response=self.response)]

    def finish_unasked(self) -> list[Event]:
        """After a start, where nothing was to be generated."""
        self.response = concluded(self.response, [], reasons=(), usage={}, completed_at=int(self._clock()))
        return [self._event("response.completed", response=self.response)]

    def fail(self, message: str, code: str | None = None) -> list[Event]:
        """What was written until now stays in the object, as incomplete."""
        if self.is_over:
            return []
        output = self._output_so_far()
        self.response = failed(self.response, output, message=message, code=code, usage=self._usage())
        return [self._event("response.failed", response=self.response)]

    @property
    def has_begun(self) -> bool:
        return self._sequence_number > 0

    @property
    def is_over(self) -> bool:
        return is_final(self.response)

    def _output_so_far(self) -> list[Item]:
        unfinished = [answer.open for answer in self._answers.values() if answer.open]
        written = {opened.output_index: opened.written("incomplete") for opened in unfinished}
        return [written.get(index, item) for index, item in enumerate(self._output)]

    def _event(self, kind: str, **fields: Any) -> Event:
        event = {"type": kind, "sequence_number": self._sequence_number, **fields}
        self._sequence_number += 1
        return event

    def _advance(self, choice: Mapping[str, Any]) -> Iterator[Event]:
        answer = self._answers.setdefault(choice["index"], _Answer())
        delta = choice.get("delta") or {}
        if delta.get("reasoning"):
            yield from self._write_reasoning(answer, delta["reasoning"])
        if delta.get("content") or answer.open is None or answer.is_writing("message"):
            yield from self._write_text(answer, delta.get("content") or "", logprobs_of(choice))
        for call in delta.get("tool_calls") or ():
            yield from self._write_call(answer, call)
        if choice.get("finish_reason"):
            answer.finish_reason = choice["finish_reason"]
            yield from self._end(answer)

    def _write_reasoning(self, answer: _Answer, text: str) -> Iterator[Event]:
        if not answer.is_writing("reasoning"):
            yield from self._open(answer, new_reasoning(self._next_id("reasoning")))
        yield self._delta(answer, text)

    def _write_text(self, answer: _Answer, text: str, logprobs: list[Any]) -> Iterator[Event]:
        answer.held_text += text
        # A token may bring no text yet (half of a character): its log-probability waits for the text.
        answer.held_logprobs += logprobs
        if not answer.held_text or not (answer.is_writing("message") or answer.held_text.strip()):
            return
        yield from self._write_held_text(answer)

    def _write_held_text(self, answer: _Answer) -> Iterator[Event]:
        text, logprobs = answer.held_text, answer.held_logprobs
        answer.held_text, answer.held_logprobs = "", []
        if not answer.is_writing("message"):
            yield from self._open(answer, new_message(self._next_id("message")))
        if text:
            yield self._delta(answer, text, logprobs)

    def _write_call(self, answer: _Answer, call: Mapping[str, Any]) -> Iterator[Event]:
        index = call.get("index", 0)
        if not answer.is_writing("function_call", index):
            if not self._may_call(answer):
                return
            answer.held_text, answer.held_logprobs = "", []
            yield from self._open(answer, new_call(self._next_id("function_call"), call), index)
        arguments = (call.get("function") or {}).get("arguments")
        if arguments:
            yield self._delta(answer, arguments)

    def _may_call(self, answer: _Answer) -> bool:
        """What the model calls beyond its limits is ignored."""
        if not self.response["parallel_tool_calls"] and "function_call" in answer.kinds:
            return False
        limit = self.response["max_tool_calls"]
        return limit is None or sum(item["type"] == "function_call" for item in self._output) < limit

    def _end(self, answer: _Answer) -> Iterator[Event]:
        if answer.is_without_message():
            yield from self._write_held_text(answer)
        if answer.open and answer.is_writing("message"):
            answer.open.logprobs += answer.held_logprobs
        yield from self._close(answer, "incomplete" if answer.finish_reason in CUT_SHORT else "completed")

    def _next_id(self, kind: str) -> str:
        return item_id(kind, self.response["id"], "o", len(self._output))

    def _open(self, answer: _Answer, item: Item, call_index: int | None = None) -> Iterator[Event]:
        yield from self._close(answer, "completed")
        opened = answer.open = OpenItem(item, len(self._output), call_index)
        answer.kinds.add(opened.kind)
        self._output.append(item)
        yield from self._told(opened.opened())

    def _delta(self, answer: _Answer, text: str, logprobs: list[Any] | None = None) -> Event:
        assert answer.open is not None
        kind, fields = answer.open.add(text, logprobs)
        return self._event(kind, **fields)

    def _close(self, answer: _Answer, status: str) -> Iterator[Event]:
        opened, answer.open = answer.open, None
        if opened is None:
            return
        item = opened.written(status)
        if self._seal and opened.kind == "reasoning":
            item = sealed(item, self._seal)
        self._output[opened.output_index] = item
        yield from self._told(opened.closed(item))

    def _told(self, told: list[Told]) -> Iterator[Event]:
        return (self._event(kind, **fields) for kind, fields in told)

    def _usage(self) -> Mapping[str, Any] | None:
        """The engine's last word; cut before it, the sum of what each choice had told."""
        told = list(self._usages.values())
        if None in self._usages or not told:
            return self._usages.get(None)
        return {**told[0], "completion_tokens": sum(usage.get("completion_tokens") or 0 for usage in told)}


def _as_delta(choice: Mapping[str, Any]) -> dict[str, Any]:
    message = choice["message"]
    calls = [{**call, "index": index} for index, call in enumerate(message.get("tool_calls") or ())]
    return {**choice, "delta": {**message, "tool_calls": calls}}
