"""A conversation made short: what people said stays word for word, what the model did becomes its own summary."""

import time
from collections.abc import Sequence
from typing import Any

from app.errors import Unavailable
from app.ids import new_id
from app.inference.chat_request import ChatRequest
from app.inference.relay import Relay
from app.inference.responses_items import COMPACTION, SEALED, Item, message_item
from app.inference.responses_object import usage_of
from app.inference.responses_request import Items, Name, ResponseCreate, WireModel
from app.inference.responses_words import in_responses_words
from app.inference.seals import Seal

MAX_SUMMARY_TOKENS = 1024
SUMMARY_SHARE = 4  # and no more than this part of the context
KEPT_ROLES = ("user", "system", "developer")

SUMMARY_REQUEST = (
    "Summarise what the assistant has said and done in this conversation, so that it can go on without its own "
    "messages, which will be gone; mine stay. Keep facts, figures, names, decisions, promises, what tools returned and "
    "what is still to be done. Write the summary alone, in the language of the conversation, as short as it can be."
)
SUMMARY_HEAD = "Summary of my answers and of what my tools returned until here:\n"


class NoSummary(Unavailable):
    """Without one, what the model did would be lost without a word."""

    code = "no_summary"


class CompactRequest(WireModel):
    """POST /responses/compact."""

    model: Name
    input: Items = None
    instructions: str | None = None
    previous_response_id: Name | None = None
    prompt_cache_key: Name | None = None
    gpu_preference: str | None = None
    extra_headers: dict[str, Any] = {}

    def asking_for_summary(self, context_length: int) -> ResponseCreate:
        """The same conversation with one more message at its end."""
        given = [{"role": "user", "content": self.input}] if isinstance(self.input, str) else self.input
        if given is None and self.previous_response_id:
            given = []
        has_talk = isinstance(given, list) and (given or self.previous_response_id)
        return ResponseCreate(
            model=self.model,
            input=[*given, {"role": "user", "content": SUMMARY_REQUEST}] if has_talk else given,
            instructions=self.instructions,
            previous_response_id=self.previous_response_id,
            max_output_tokens=min(MAX_SUMMARY_TOKENS, context_length // SUMMARY_SHARE),
            thinking_mode="no_think",
        )


class Compaction:
    """One request for a shorter conversation, and its answer."""

    def __init__(self, relay: Relay, chat: ChatRequest, items: Sequence[Item], seal: Seal) -> None:
        self._relay = relay
        self._body = relay.body(chat)
        self._items = items
        self._seal = seal
        self.gpu = str(relay.target.gpu)

    async def whole(self) -> dict[str, Any]:
        """Raises NoSummary, and as `Relay.read` does."""
        with in_responses_words():
            completion = await self._relay.read(self._body)
        summary = (completion["choices"][0]["message"].get("content") or "").strip()
        if not summary:
            raise NoSummary("The model wrote no summary of this conversation; try again.")
        return {
            "id": new_id("resp"),
            "object": "response.compaction",
            "created_at": int(time.time()),
            "output": compacted(self._items, summary, self._seal),
            "usage": usage_of(completion["usage"]),
        }


def compacted(items: Sequence[Item], summary: str, seal: Seal) -> list[Item]:
    kept = [item for item in items if item["type"] == "message" and item["role"] in KEPT_ROLES]
    hidden = [message_item("assistant", SUMMARY_HEAD + summary), *unanswered_calls(items)]
    return [*kept, {"id": new_id("cmp"), "type": COMPACTION, SEALED: seal.close(hidden)}]


def unanswered_calls(items: Sequence[Item]) -> list[Item]:
    """Their outputs are still to come, and must find them."""
    answered = {item["call_id"] for item in items if item["type"] == "function_call_output"}
    return [item for item in items if item["type"] == "function_call" and item["call_id"] not in answered]
