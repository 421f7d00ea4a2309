"""An output item while it is written, and what events tell of it."""

from dataclasses import dataclass, field
from typing import Any

from app.inference.responses_items import Item
from app.inference.responses_object import output_text

# An event's type and its fields, before it has a number.
Told = tuple[str, dict[str, Any]]

# What an item's text is called in the events about it.
TEXT_EVENTS = {
    "message": "response.output_text",
    "reasoning": "response.reasoning_text",
    "function_call": "response.function_call_arguments",
}


@dataclass
class OpenItem:
    item: Item
    output_index: int
    call_index: int | None = None
    text: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return str(self.item["type"])

    @property
    def place(self) -> dict[str, Any]:
        place = {"item_id": self.item["id"], "output_index": self.output_index}
        return place if self.kind == "function_call" else {**place, "content_index": 0}

    def part(self) -> Item:
        text = "".join(self.text)
        if self.kind == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return output_text(text, list(self.logprobs))

    def written(self, status: str) -> Item:
        """The item with all of its text."""
        if self.kind == "function_call":
            return {**self.item, "status": status, "arguments": "".join(self.text)}
        return {**self.item, "status": status, "content": [self.part()]}

    def opened(self) -> list[Told]:
        told: list[Told] = [("response.output_item.added", {"output_index": self.output_index, "item": self.item})]
        if self.kind != "function_call":
            told.append(("response.content_part.added", {**self.place, "part": self.part()}))
        return told

    def add(self, text: str, logprobs: list[Any] | None = None) -> Told:
        self.text.append(text)
        fields: dict[str, Any] = {**self.place, "delta": text}
        if self.kind == "message":
            fields["logprobs"] = logprobs or []
            self.logprobs += logprobs or []
        return f"{TEXT_EVENTS[self.kind]}.delta", fields

    def closed(self, item: Item) -> list[Told]:
        """`item`: as it was written."""
        told: list[Told] = [(f"{TEXT_EVENTS[self.kind]}.done", {**self.place, **_whole_text(item)})]
        if self.kind != "function_call":
            told.append(("response.content_part.done", {**self.place, "part": item["content"][0]}))
        return [*told, ("response.output_item.done", {"output_index": self.output_index, "item": item})]


def _whole_text(item: Item) -> dict[str, Any]:
    if item["type"] == "function_call":
        return {"name": item["name"], "arguments": item["arguments"]}
    part = item["content"][0]
    return {name: part[name] for name in ("text", "logprobs") if name in part}
