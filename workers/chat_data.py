"""Training rows become token ids and labels, rendered by the model's own chat template."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from workers.chat_template import UNRENDERED, Message, Rendered, Template
from workers.training_rows import Row, RowError, read_rows

IGNORED = -100  # a label that cross-entropy leaves out
NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]  # Unicode keeps these out of any text


@dataclass(frozen=True)
class Example:
    """One sequence to train on. A label is the token itself, or IGNORED."""

    line: int
    input_ids: list[int]
    labels: list[int]
    is_cut: bool = False  # at max_seq_length

    @property
    def has_loss(self) -> bool:
        # The first token is predicted from nothing, so it never counts.
        return any(label != IGNORED for label in self.labels[1:])


def load_encoder(model_path: str, *, max_seq_length: int, train_on_inputs: bool) -> "ChatEncoder":
    """The model's own tokenizer and template, and the tokens at which engines end its answers."""
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    return ChatEncoder(
        tokenizer,
        max_seq_length=max_seq_length,
        train_on_inputs=train_on_inputs,
        stop_ids=_stop_ids(model_path),
    )


def _stop_ids(model_path: str) -> list[int]:
    """Those of generation_config.json, which vLLM heeds beside the tokenizer's own."""
    try:
        ids = GenerationConfig.from_pretrained(model_path).eos_token_id
    except OSError:  # the model has none
        return []
    return [ids] if isinstance(ids, int) else list(ids or [])


class ChatEncoder:
    """Renders and encodes rows for one tokenizer. What lies in a message is data, never control."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_seq_length: int,
        train_on_inputs: bool,
        stop_ids: Sequence[int] = (),
    ) -> None:
        self.tokenizer = tokenizer
        self.max_seq_length = max_seq_length
        self.train_on_inputs = train_on_inputs
        own = [tokenizer.eos_token] if tokenizer.eos_token else []
        self.stops = sorted({*own, *map(str, tokenizer.convert_ids_to_tokens(list(stop_ids)))})
        # Marks that a model writes itself, as <think>, are added tokens too, but not special: served and learned alike.
        special = [token for token in tokenizer.added_tokens_decoder.values() if token.special]
        spelt = {str(token) for token in special if len(str(token)) > 1} | set(self.stops)
        self.control = re.compile("|".join(map(re.escape, sorted(spelt, key=len, reverse=True))) or r"(?!)")
        self.anchor = next((str(token) for token in special if not token.rstrip), "")

    def load(self, path: Path) -> list[Example]:
        return [example for line, row in read_rows(path) for example in self.encode(row, line=line)]

    def encode(self, row: Row, *, line: int = 1) -> list[Example]:
        """Mostly one example. A template that shows an earlier answer otherwise than it was written
        (some drop its reasoning) gives one for each answer, each as it would be asked for when served."""
        row, mark = self._guard(row, line)
        messages = [_plain_message(message) for message in row["messages"]]
        learned = [_is_learned(message) for message in row["messages"] if message["role"] == "assistant"]
        tools = [_openai_tool(tool) for tool in row.get("tools") or []] or None
        try:
            conversations = Template(self.tokenizer, tools, self.stops).render(messages, learned)
        except UNRENDERED as error:
            raise RowError(line, f"the model's chat template cannot render it: {error}") from error
        if self.train_on_inputs and not all(learned) and any(len(r.spans) < len(learned) for r in conversations):
            reason = (
                "the model's chat template rewrites earlier answers, so train_on_inputs would learn its weight 0 too"
            )
            raise RowError(line, reason)
        return [self._example(line, rendered, mark) for rendered in conversations]

    def _guard(self, row: Row, line: int) -> tuple[Row, str]:
        """A control token spelt out in a message is cut in two by a mark, so that it is encoded as text."""
        text = json.dumps(row, ensure_ascii=False)
        if not self.control.search(text):
            return row, ""
        mark = next((mark for mark in NONCHARACTERS if mark not in text), "")
        if not mark:
            raise RowError(line, "control tokens and all of Unicode's noncharacters in one row")
        return _map_strings(row, lambda s: self.control.sub(lambda m: m[0][0] + mark + m[0][1:], s)), mark

    def _example(self, line: int, rendered: Rendered, mark: str) -> Example:
        # What is served is encoded apart from what is generated, so the pieces are encoded apart too:
        # a token across the border would never be met at inference.
        ids: list[int] = []
        labels: list[int] = []
        for text, is_learned in _pieces(rendered, self.train_on_inputs):
            for part in text.split(mark) if mark else [text]:
                piece = self._ids(part, is_first=not ids)
                ids += piece
                labels += piece if is_learned else [IGNORED] * len(piece)
        cut = self.max_seq_length
        return Example(line, ids[:cut], labels[:cut], is_cut=len(ids) > cut)

    def _ids(self, text: str, *, is_first: bool) -> list[int]:
        """Some tokenizers put a blank before the first word of what they are given: behind a token they do not."""
        if not text:
            return []
        anchor = "" if is_first else self.anchor
        ids: list[int] = self.tokenizer.encode(anchor + text, add_special_tokens=False)
        return ids[1:] if anchor else ids


def _pieces(rendered: Rendered, train_on_inputs: bool) -> Iterator[tuple[str, bool]]:
    at = 0
    for span in rendered.spans:
        yield rendered.text[at : span.start], train_on_inputs
        yield rendered.text[span.start : span.end], span.is_learned
        at = span.end
    yield rendered.text[at:], train_on_inputs


def _plain_message(message: Message) -> Message:
    """As the engine hands it to the template: text parts joined, arguments as objects, no weight, no empty list."""
    plain = {key: value for key, value in message.items() if key not in ("weight", "tool_calls")}
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(part["text"] for part in content)
    plain["content"] = content or ""
    plain["role"] = "system" if message["role"] == "developer" else message["role"]
    if isinstance(message.get("reasoning"), str):
        plain.setdefault("reasoning_content", message["reasoning"])
    if message.get("tool_calls"):
        plain["tool_calls"] = [_with_object_arguments(call) for call in message["tool_calls"]]
    return plain


def _with_object_arguments(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function", call)
    arguments = function.get("arguments") or {}
    arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    return {**call, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _openai_tool(tool: dict[str, Any]) -> dict[str, Any]:
    """As vLLM hands it to the template: these keys in this order, null where there is none."""
    function = tool.get("function", tool)
    shown = {key: function.get(key) for key in ("name", "description", "parameters")}
    if function.get("strict") is not None:
        shown["strict"] = function["strict"]
    return {"type": "function", "function": shown}


def _is_learned(message: Message) -> bool:
    return bool(message.get("weight", 1))


def _map_strings(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_map_strings(item, change) for item in value]
    if isinstance(value, dict):
        return {_map_strings(key, change): _map_strings(item, change) for key, item in value.items()}
    return value
