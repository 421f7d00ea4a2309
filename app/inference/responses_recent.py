"""What a connection remembers of the responses that are not stored, so that it can go on from them."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import orjson

from app.inference.responses_items import Item


class Recent:
    """The latest conversations, by the response that ends them, as many as fit: as JSON, whose size is known."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._n_bytes = 0
        self._known: OrderedDict[str, bytes] = OrderedDict()

    def remember(self, response_id: str, conversation: Sequence[Item]) -> None:
        self._known[response_id] = orjson.dumps(conversation)
        self._n_bytes += len(self._known[response_id])
        while self._n_bytes > self._max_bytes:
            self.forget(next(iter(self._known)))

    def find(self, response_id: str | None) -> list[Item] | None:
        kept = self._known.get(response_id or "")
        return None if kept is None else orjson.loads(kept)

    def forget(self, response_id: Any) -> None:
        """Whatever a client sent for an id."""
        if isinstance(response_id, str) and response_id in self._known:
            self._n_bytes -= len(self._known.pop(response_id))
