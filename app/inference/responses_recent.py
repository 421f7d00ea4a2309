"""What a connection remembers of the responses that are not stored, so that it can go on from them."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import orjson

from app.inference.responses_items import Item

Conversation = Sequence[Item]


class Recent:
    """The latest conversations, by the response that ends them, as many as fit in so many bytes of JSON."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._sizes: dict[str, int] = {}
        self._known: OrderedDict[str, Conversation] = OrderedDict()

    def remember(self, response_id: str, conversation: Conversation) -> None:
        self._known[response_id] = conversation
        self._sizes[response_id] = len(orjson.dumps(conversation))
        while sum(self._sizes.values()) > self._max_bytes:
            self.forget(next(iter(self._known)))

    def find(self, response_id: str | None) -> Conversation | None:
        return self._known.get(response_id or "")

    def forget(self, response_id: Any) -> None:
        """Whatever a client sent for an id."""
        if isinstance(response_id, str) and response_id in self._known:
            del self._known[response_id], self._sizes[response_id]
