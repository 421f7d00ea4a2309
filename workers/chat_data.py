"""Training rows become token ids and labels, rendered by the model's own chat template."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

IGNORED = -100  # a label that cross-entropy leaves out
GENERATION_MARKER = re.compile(r"\{%-?\s*generation\s*-?%\}")
NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]  # Unicode keeps these out of any text

Message = dict[str, Any]
Row = dict[str, Any]


class RowError(ValueError):
    """What is wrong with a row, for the eyes of the file's owner; it begins with the line's number."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"Line {line}: {message}")


@dataclass(frozen=True)
class Example:
    """One sequence to train on. A label is the token itself, or IGNORED."""

    line: int
    input_ids: list[int]
    labels: list[int]

    @property
    def has_loss(self) -> bool:
        # The first token is predicted from nothing, so it never counts.
        return any(label != IGNORED for label in self.labels[1:])


@dataclass(frozen=True)
class Span:
    """Where in a rendered conversation one assistant message stands, and whether to learn it."""

    start: int
    end: int
    is_learned: bool


@dataclass(frozen=True)
class Rendered:
    text: str
    spans: list[Span]


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """1-based line numbers of the raw file; blank lines count but give nothing.

    Lines end with a newline alone: str.splitlines would cut at U+2028 and U+0085 inside of strings.
    """
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            text = raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise RowError(line, f"not a JSON object in UTF-8 ({error})") from error
            if not isinstance(row, dict) or not row.get("messages"):
                raise RowError(line, "no messages")
            yield line, row


class ChatEncoder:
    """Renders and encodes rows for one tokenizer. What lies in a message is data, never control."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, max_seq_length: int, train_on_inputs: bool) -> None:
        self.tokenizer = tokenizer
        self.max_seq_length = max_seq_length
        self.train_on_inputs = train_on_inputs
        # Marks that a model writes itself, as <think>, are added tokens too, but not special: served and learned alike.
        special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        controls = sorted((token for token in special if len(token) > 1), key=len, reverse=True)
        self.control = re.compile("|".join(map(re.escape, controls)) or r"(?!)")

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
            conversations = Template(self.tokenizer, tools).render(messages, learned)
        except (TemplateError, Unprovable, TypeError) as error:
            raise RowError(line, f"the model's chat template cannot render it: {error}") from error
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
            piece = [i for part in (text.split(mark) if mark else [text]) for i in self._ids(part)]
            ids += piece
            labels += piece if is_learned else [IGNORED] * len(piece)
        return Example(line, ids[: self.max_seq_length], labels[: self.max_seq_length])

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False) if text else []
        return ids


class Unprovable(ValueError):
    """The template gives no way to tell where an answer begins and ends."""


class Template:
    """The model's chat template with the tools of one row."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]] | None) -> None:
        self.tokenizer = tokenizer
        self.tools = tools
        self.source = tokenizer.get_chat_template(tools=tools)

    def render(self, messages: list[Message], learned: list[bool]) -> list[Rendered]:
        if GENERATION_MARKER.search(self.source):
            return [self._by_markers(messages, learned)]
        return self._by_prefixes(messages, learned)

    def _by_markers(self, messages: list[Message], learned: list[bool]) -> Rendered:
        texts, spans = render_jinja_template(
            [messages],
            tools=self.tools,
            chat_template=self.source,
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )
        if len(spans[0]) != len(learned):
            raise Unprovable(f"{len(spans[0])} generation blocks for {len(learned)} assistant messages")
        return Rendered(
            texts[0], [Span(start, end, is_learned) for (start, end), is_learned in zip(spans[0], learned, strict=True)]
        )

    def _by_prefixes(self, messages: list[Message], learned: list[bool]) -> list[Rendered]:
        """An answer is what is added to its prompt, and it is proven where the prompt is a prefix."""
        whole = self._text(messages)
        at = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        turns = [
            self._turn(messages[: i + 1], is_learned=is_learned) for i, is_learned in zip(at, learned, strict=True)
        ]
        if all(whole.startswith(turn.text) for turn in turns):
            return [Rendered(whole, [turn.spans[0] for turn in turns])]
        return [turn for turn in turns if turn.spans[0].is_learned]

    def _turn(self, messages: list[Message], *, is_learned: bool) -> Rendered:
        prompt, text = self._text(messages[:-1], add_generation_prompt=True), self._text(messages)
        if not text.startswith(prompt):
            raise Unprovable(f"messages[{len(messages) - 1}] does not begin where its generation prompt ends")
        return Rendered(text, [Span(len(prompt), self._end_of_answer(text), is_learned)])

    def _end_of_answer(self, text: str) -> int:
        """Behind the end token the engine stops: a template's newline after it is no part of the answer."""
        end, eos = len(text.rstrip()), self.tokenizer.eos_token
        return end if eos and text[:end].endswith(eos) else len(text)

    def _text(self, messages: list[Message], *, add_generation_prompt: bool = False) -> str:
        texts, _ = render_jinja_template(
            [messages],
            tools=self.tools,
            chat_template=self.source,
            add_generation_prompt=add_generation_prompt,
            **self.tokenizer.special_tokens_map,
        )
        return str(texts[0])


def _pieces(rendered: Rendered, train_on_inputs: bool) -> Iterator[tuple[str, bool]]:
    at = 0
    for span in rendered.spans:
        yield rendered.text[at : span.start], train_on_inputs
        yield rendered.text[span.start : span.end], span.is_learned
        at = span.end
    yield rendered.text[at:], train_on_inputs


def _plain_message(message: Message) -> Message:
    """As the engine hands it to the template: text parts joined, arguments as objects, no weight."""
    plain = {key: value for key, value in message.items() if key != "weight"}
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(part["text"] for part in content)
    plain["content"] = content or ""
    plain["role"] = "system" if message["role"] == "developer" else message["role"]
    if message.get("tool_calls"):
        plain["tool_calls"] = [_with_object_arguments(call) for call in message["tool_calls"]]
    return plain


def _with_object_arguments(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function", call)
    arguments = function.get("arguments") or {}
    arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    return {**call, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _openai_tool(tool: dict[str, Any]) -> dict[str, Any]:
    if "function" in tool:
        return tool
    return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}


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
