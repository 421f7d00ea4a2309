"""A stream of chunks folded into the whole completion that it would have been.

Engines are always asked for a stream: only there do they tell what they have generated before they are done, which is
what a client that leaves is charged for, and only there can a long answer be told from an engine that hangs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TEXTS = ("content", "reasoning", "reasoning_content", "refusal")


@dataclass
class _Choice:
    texts: dict[str, list[str]] = field(default_factory=dict)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    logprobs: list[Any] | None = None
    finish_reason: str | None = None

    def add(self, choice: Mapping[str, Any]) -> None:
        delta = choice["delta"]
        for name in TEXTS:
            if delta.get(name):
                self.texts.setdefault(name, []).append(delta[name])
        for call in delta.get("tool_calls") or ():
            self._add_call(call)
        if choice.get("logprobs"):
            self.logprobs = (self.logprobs or []) + (choice["logprobs"].get("content") or [])
        self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def _add_call(self, call: Mapping[str, Any]) -> None:
        """The first piece of a call names it, the others bring its arguments."""
        known = self.calls.setdefault(call["index"], {"function": {"name": "", "arguments": ""}})
        known |= {name: call[name] for name in ("id", "type") if call.get(name)}
        for name, piece in (call.get("function") or {}).items():
            known["function"][name] = known["function"].get(name, "") + (piece or "")

    def whole(self, index: int) -> dict[str, Any]:
        texts = {name: "".join(pieces) for name, pieces in self.texts.items()}
        message: dict[str, Any] = {"role": "assistant", "content": None if self.calls else "", "refusal": None, **texts}
        if self.calls:
            message["tool_calls"] = [self.calls[i] for i in sorted(self.calls)]
        logprobs = None if self.logprobs is None else {"content": self.logprobs, "refusal": None}
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": self.finish_reason}


class Folding:
    """Feed it parsed chunks; `completion` is the whole."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {}
        self._usage: Mapping[str, Any] | None = None

    def feed(self, *chunks: Mapping[str, Any]) -> None:
        for chunk in chunks:
            self._feed(chunk)

    def _feed(self, chunk: Mapping[str, Any]) -> None:
        self._head |= {k: v for k, v in chunk.items() if k in ("id", "created", "model", "system_fingerprint") and v}
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk["choices"]:
            self._choices.setdefault(choice["index"], _Choice()).add(choice)

    @property
    def completion(self) -> dict[str, Any]:
        choices = [self._choices[index].whole(index) for index in sorted(self._choices)]
        return {"object": "chat.completion", **self._head, "choices": choices, "usage": self._usage}
