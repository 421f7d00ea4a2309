"""What a response's events have told of its output, for who ends it in its worker's place."""

from collections.abc import Iterable

from app.inference.responses_items import Item
from app.inference.responses_open_item import OpenItem
from app.inference.responses_stream import Event


def output_told(events: Iterable[Event]) -> list[Item]:
    """The items as far as they have come; one that was being written is incomplete."""
    told: dict[int, Item] = {}
    opened: dict[int, OpenItem] = {}
    for event in events:
        kind, index = event["type"], event.get("output_index", 0)
        if kind == "response.output_item.added":
            opened[index] = OpenItem(event["item"], index)
        elif kind.endswith(".delta"):
            opened[index].text.append(event["delta"])
            opened[index].logprobs += event.get("logprobs", ())
        elif kind == "response.output_item.done":
            told[index] = event["item"]
    unfinished = {index: item.written("incomplete") for index, item in opened.items()}
    return [item for _, item in sorted({**unfinished, **told}.items())]
