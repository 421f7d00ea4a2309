"""What has to be settled before a response begins, however it was asked for."""

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.requests import HTTPConnection

from app.catalog.resolve import Target
from app.error_handlers import validation_error
from app.ids import new_id
from app.inference.admission import relay_of
from app.inference.bounds import check_takes_tools
from app.inference.chat import parse as parse_chat
from app.inference.chat_request import ChatRequest
from app.inference.relay import Relay
from app.inference.responses_chat import to_chat, with_questions_joined
from app.inference.responses_compaction import Compaction
from app.inference.responses_counting import Counting
from app.inference.responses_exchange import Exchange
from app.inference.responses_items import Item, input_items
from app.inference.responses_request import ResponseCreate, WireModel
from app.inference.responses_words import in_responses_words
from app.inference.seals import Seal
from app.inference.truncation import TruncatingRelay

Asked = TypeVar("Asked", bound=WireModel)


def validated(kind: type[Asked], body: dict[str, Any]) -> Asked:
    """Raises BadRequest."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise validation_error(error.errors()) from error


def begin(
    connection: HTTPConnection,
    target: Target,
    org_id: str,
    asked: ResponseCreate,
    history: Sequence[Item],
    idempotency: tuple[str | None, Any] = (None, None),
) -> Exchange:
    """`history`: the conversation so far. Raises BadRequest."""
    seal = seal_of(connection, org_id)
    chat = chat_of(target, asked, history, seal)
    kind = TruncatingRelay if asked.truncation == "auto" else Relay
    relay = relay_of(connection, target, org_id, kind)
    return Exchange(relay, connection.app.state.store, asked, chat, seal=seal.close, idempotency=idempotency)


def begin_counting(
    connection: HTTPConnection, target: Target, org_id: str, asked: ResponseCreate, history: Sequence[Item]
) -> Counting:
    """Raises BadRequest."""
    chat = chat_of(target, asked, history, seal_of(connection, org_id))
    return Counting(relay_of(connection, target, org_id), chat)


def begin_compaction(
    connection: HTTPConnection, target: Target, org_id: str, question: ResponseCreate, history: Sequence[Item]
) -> Compaction:
    """`question`: the conversation and, at its end, what asks for its summary. Raises BadRequest."""
    seal = seal_of(connection, org_id)
    body = to_chat(question, history, seal.open)
    with in_responses_words():
        chat = parse_chat({**body, "messages": with_questions_joined(body["messages"])})
    items = [*history, *input_items(question, new_id("resp"))[:-1]]
    relay = relay_of(connection, target, org_id)
    return Compaction(relay, chat, items, seal)


def chat_of(target: Target, asked: ResponseCreate, history: Sequence[Item], seal: Seal) -> ChatRequest:
    """Raises BadRequest."""
    with in_responses_words():
        chat = parse_chat(to_chat(asked, history, seal.open))
        check_takes_tools(target.model, chat.tools, chat.tool_choice)
    return chat


def seal_of(connection: HTTPConnection, org_id: str) -> Seal:
    seal: Seal = connection.app.state.seals.of(org_id)
    return seal
