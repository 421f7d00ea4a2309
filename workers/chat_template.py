"""Conversations as the model's own template shows them, and where in them each answer stands."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

Message = dict[str, Any]

FORCED_THOUGHT = re.compile(r"<think>\n*$")  # a prompt that ends so has begun the model's thought for it
UNRENDERED = (TemplateError, TypeError, ValueError, LookupError)  # what templates raise of rows they cannot show


class Unprovable(ValueError):
    """The template gives no way to tell what the model has to write."""


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


class Template:
    """The chat template with the tools of one row. `stops`: the tokens at which the engine ends an answer.

    What is learned of an answer is what the engine lets the model write: all behind the prompt that it is asked
    with, up to a stop. A template's own generation markers are not asked, since some hold the prompt's end too.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]] | None, stops: Sequence[str]
    ) -> None:
        self.tokenizer = tokenizer
        self.tools = tools
        self.stops = stops
        self.source = tokenizer.get_chat_template(tools=tools)

    def render(self, messages: list[Message], learned: list[bool]) -> list[Rendered]:
        """The whole conversation, if every answer stands in it as it is written when asked for; else each answer to
        learn behind its own prompt. Raises UNRENDERED."""
        at = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        turns = [self._turn(messages[: i + 1], is_learned) for i, is_learned in zip(at, learned, strict=True)]
        whole = self._text(messages)
        if all(turn and whole.startswith(turn.text) for turn in turns):
            return [Rendered(whole, [turn.spans[0] for turn in turns if turn])]
        return [turn for turn in turns if turn and turn.spans[0].is_learned]

    def _turn(self, messages: list[Message], is_learned: bool) -> Rendered | None:
        """The last message behind its prompt; None if it cannot be told and need not be."""
        try:
            prompt = self._text(messages[:-1], add_generation_prompt=True)
            answer = self._answer(messages, prompt)
        except UNRENDERED:
            if is_learned:
                raise
            return None
        return Rendered(prompt + answer, [Span(len(prompt), len(prompt + answer), is_learned)])

    def _answer(self, messages: list[Message], prompt: str) -> str:
        where, message = f"messages[{len(messages) - 1}]", messages[-1]
        text = self._text(messages)
        # Some templates show the prompt otherwise once it is answered. They must show the answer as they do without it.
        found = _behind(prompt, text, message) or self._apart(message)
        if found is None or not text.endswith(found[1]):
            raise Unprovable(f"{where} does not begin where its generation prompt ends")
        _require_shown(message, found[1], where)
        return self._until_stop("".join(found), where)

    def _apart(self, message: Message) -> tuple[str, str] | None:
        """The answer behind the shortest prompt there is."""
        asked = [{"role": "user", "content": "?"}]
        return _behind(self._text(asked, add_generation_prompt=True), self._text([*asked, message]), message)

    def _until_stop(self, answer: str, where: str) -> str:
        ends = [answer.find(stop) + len(stop) for stop in self.stops if stop in answer]
        if not ends:
            raise Unprovable(f"{where} does not end with a token at which the engine stops")
        return answer[: min(ends)]

    def _text(self, messages: list[Message], *, add_generation_prompt: bool = False) -> str:
        texts, _ = render_jinja_template(
            [messages],
            tools=self.tools,
            chat_template=self.source,
            add_generation_prompt=add_generation_prompt,
            **self.tokenizer.special_tokens_map,
        )
        return str(texts[0])


def _behind(prompt: str, text: str, message: Message) -> tuple[str, str] | None:
    """What is written behind the prompt: the rest of a thought that the prompt has begun and the template leaves out,
    and what the template shows. None where the text does not go on from the prompt."""
    if text.startswith(prompt):
        return "", text[len(prompt) :]
    begun = FORCED_THOUGHT.search(prompt)
    if begun is None or not text.startswith(prompt[: begun.start()]):
        return None
    # A row without a thought teaches an empty one, as models with a thinking switch write it.
    thought = f"<think>\n{_thought_of(message)}\n</think>\n\n"
    return thought[len(begun[0]) :], text[begun.start() :].rpartition("</think>")[2].lstrip("\n")


def _thought_of(message: Message) -> str:
    if isinstance(message.get("reasoning_content"), str):
        return str(message["reasoning_content"]).strip("\n")
    thought, end, _ = message["content"].partition("</think>")
    return str(thought).rpartition("<think>")[2].strip("\n") if end else ""


def _require_shown(message: Message, shown: str, where: str) -> None:
    calls = message.get("tool_calls") or []
    if not all(call["function"]["name"] in shown for call in calls):
        raise Unprovable(f"{where}: the model's template does not show tool calls")
    content = message["content"].rpartition("</think>")[2].strip()
    if content not in shown and not calls:
        raise Unprovable(f"{where}: the model's template does not show its content")
