"""A finished response as the stream that it could have been, for a repeated request: each text in one piece."""

from typing import Any

from app.inference.responses_items import Item
from app.inference.responses_object import OPEN, Response
from app.inference.responses_open_item import OpenItem, Told
from app.inference.responses_stream import Event

NOT_YET: dict[str, Any] = {
    "status": OPEN,
    "output": [],
    "output_text": "",
    "usage": None,
    "completed_at": None,
    "error": None,
    "incomplete_details": None,
}


def retold(response: Response) -> list[Event]:
    begun = {**response, **NOT_YET}
    told: list[Told] = [(f"response.{word}", {"response": begun}) for word in ("created", "in_progress")]
    for index, item in enumerate(response["output"]):
        told += _item_retold(index, item)
    told.append((f"response.{response['status']}", {"response": response}))
    return [{"type": kind, "sequence_number": number, **fields} for number, (kind, fields) in enumerate(told)]


def _item_retold(index: int, item: Item) -> list[Told]:
    is_call = item["type"] == "function_call"
    part = {"text": item["arguments"]} if is_call else item["content"][0]
    blank: dict[str, Any] = {"arguments": ""} if is_call else {"content": []}
    opened = OpenItem({**item, **blank, "status": OPEN}, index)
    started = opened.opened()
    text = [opened.add(part["text"], part.get("logprobs"))] if part["text"] else []
    return [*started, *text, *opened.closed(item)]
