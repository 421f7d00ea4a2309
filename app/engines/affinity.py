"""Which replica of an engine a request goes to: one that knows what it will need again."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

from cachetools import LRUCache

MAX_PREFIXES = 4096
MESSAGES, CHARS = 4, 64


class Replica(Protocol):
    in_flight: int

    @property
    def is_ready(self) -> bool: ...

    def has_adapter(self, adapter_id: str) -> bool: ...


Chosen = TypeVar("Chosen", bound=Replica)


class Affinity:
    """Remembers the beginnings of the conversations that each replica was last asked."""

    def __init__(self) -> None:
        self._seen: WeakKeyDictionary[Any, LRUCache[int, None]] = WeakKeyDictionary()

    def choose(
        self, replicas: Sequence[Chosen], *, adapter_id: str | None, prefixes: Sequence[int], crowded_at: int
    ) -> Chosen:
        """Of those that are ready and not crowded, if any are: the one that has the adapter, then the one that has
        seen most of the conversation, then the one with the least to do.
        """
        ready = [replica for replica in replicas if replica.is_ready] or replicas
        roomy = [replica for replica in ready if replica.in_flight < crowded_at] or ready

        def worth(replica: Chosen) -> tuple[bool, int, int]:
            has_adapter = adapter_id is not None and replica.has_adapter(adapter_id)
            return has_adapter, self._n_seen(replica, prefixes), -replica.in_flight

        chosen = max(roomy, key=worth)
        self._seen.setdefault(chosen, LRUCache(MAX_PREFIXES)).update(dict.fromkeys(prefixes))
        return chosen

    def _n_seen(self, replica: Replica, prefixes: Sequence[int]) -> int:
        seen = self._seen.get(replica, ())
        return sum(prefix in seen for prefix in prefixes)


def prefixes_of(body: Mapping[str, Any]) -> list[int]:
    """A number for each beginning of a conversation, of one message, of two…; made of a few hundred characters.

    Under another salt the engine's cache knows nothing of it.
    """
    prefixes: list[int] = []
    key = hash(body.get("cache_salt"))
    for message in body.get("messages", ())[:MESSAGES]:
        text = _text(message.get("content"))
        key = hash((key, message.get("role"), len(text), text[:CHARS]))
        prefixes.append(key)
    return prefixes


def _text(content: Any) -> str:
    """Of content in parts, the first says enough."""
    if isinstance(content, list) and content:
        content = content[0].get("text")
    return content if isinstance(content, str) else ""
