"""What chat completions refuse, told in the words of Responses: a client is told of the fields that it sent."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import BadRequest

# Chat's fields, and what Responses call them; of a conversation only the whole is known.
WORDS = (
    (re.compile(r"^response_format\.json_schema"), "text.format"),
    (re.compile(r"^response_format"), "text.format"),
    (re.compile(r"^(tools\[\d+\])\.function"), r"\1"),
    (re.compile(r"^messages.*"), "input"),
    (re.compile(r"^max_completion_tokens"), "max_output_tokens"),
    (re.compile(r"^reasoning_effort"), "reasoning.effort"),
)


@contextmanager
def in_responses_words() -> Iterator[None]:
    """Around what judges a request as a chat completion."""
    try:
        yield
    except BadRequest as error:
        if error.param:
            named = field_in_responses(error.param)
            error.message, error.param = error.message.replace(error.param, named), named
        raise


def field_in_responses(field: str) -> str:
    for chat, responses in WORDS:
        if chat.match(field):
            return chat.sub(responses, field)
    return field
