"""References to items: by its id, any item of any of the organisation's stored responses can be sent again."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import NotFound
from app.inference.responses_ids import response_id_in
from app.inference.responses_items import Item, is_reference
from app.inference.responses_request import ResponseCreate
from app.store.tables import StoredResponse


class UnknownItem(NotFound):
    """Not there, not this organisation's, or not stored."""

    def __init__(self, item_id: str) -> None:
        message = (
            f"Item with id '{item_id[:100]}' not found. Items of a response that is not stored cannot be referenced."
        )
        super().__init__(message, param="input")


async def with_referenced(
    session: AsyncSession, org_id: str, asked: ResponseCreate, history: Sequence[Item]
) -> ResponseCreate:
    """References replaced by what they point at; those into `history` are left: it is in the conversation already.

    Raises UnknownItem.
    """
    name = asked.asked_in
    given = getattr(asked, name)
    known = {item["id"] for item in history}
    references = [item for item in given if is_reference(item)] if isinstance(given, list) else []
    wanted = [reference["id"] for reference in references if reference["id"] not in known]
    if not wanted:
        return asked
    found = await _find(session, org_id, wanted)
    items = [found.get(item["id"], item) if is_reference(item) else item for item in given]
    return asked.model_copy(update={name: items})


async def _find(session: AsyncSession, org_id: str, wanted: list[str]) -> dict[str, Item]:
    response_ids = {response_id for item_id in wanted if (response_id := response_id_in(item_id))}
    rows = select(StoredResponse).where(StoredResponse.org_id == org_id, StoredResponse.id.in_(response_ids))
    items = [item for row in await session.scalars(rows) for item in _items_of(row)]
    found = {item["id"]: item for item in items}
    for item_id in wanted:
        if item_id not in found:
            raise UnknownItem(item_id)
    return {item_id: found[item_id] for item_id in wanted}


def _items_of(row: StoredResponse) -> list[Any]:
    return [*row.input_items, *row.body["output"]]
