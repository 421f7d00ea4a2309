"""Ids of items name the response that they came with: any item can be found by its id alone, without an index."""

import re
from typing import Literal

PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
    "compaction": "cmp",
}
# The letters of a response's id leave out i and o.
ITEM_ID = re.compile(r"[a-z]+_([0-9a-hjkmnp-tv-z]{26})[io]\d{4,}")


def item_id(kind: str, response_id: str, side: Literal["i", "o"], index: int) -> str:
    """`side`: whether the item is of a response's input or of its output."""
    return f"{PREFIXES[kind]}_{response_id.removeprefix('resp_')}{side}{index:04d}"


def response_id_in(item: str) -> str | None:
    """None when the id is not one of ours."""
    found = ITEM_ID.fullmatch(item)
    return f"resp_{found[1]}" if found else None
