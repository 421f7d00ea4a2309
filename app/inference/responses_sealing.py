"""Reasoning that a client carries along: sealed, so that nothing need be kept here and nothing can be changed there."""

from collections.abc import Callable, Iterable
from typing import Any

from app.inference.responses_items import SEALED, Item

Close = Callable[[Any], str]


def sealed(item: Item, close: Close) -> Item:
    """A reasoning item with what it says in its `encrypted_content` too."""
    hidden = {name: item[name] for name in ("type", "summary", "content")}
    return {**item, SEALED: close([hidden])}


def with_reasoning_sealed(items: Iterable[Item], close: Close) -> list[Item]:
    """Those that are not sealed yet."""
    return [sealed(item, close) if item["type"] == "reasoning" and SEALED not in item else item for item in items]
