"""Lists as OpenAI pages them: newest first, strictly past a cursor, stable while rows come and go."""

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, Select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.errors import BadRequest

Row = TypeVar("Row")
Out = TypeVar("Out")


class PageQuery(BaseModel):
    after: str | None = Field(None, description="the last id of the page before")
    limit: int = Field(20, ge=1, le=100)
    order: Literal["asc", "desc"] = "desc"


class ListOut(BaseModel, Generic[Out]):
    object: Literal["list"]
    data: list[Out]
    first_id: str | None
    last_id: str | None
    has_more: bool


@dataclass(frozen=True)
class Page(Generic[Row]):
    rows: list[Row]
    has_more: bool


async def paginate(
    session: AsyncSession,
    rows: Select[Row],
    key: InstrumentedAttribute[Any],
    query: PageQuery,
    *,
    visible: ColumnElement[bool] | None = None,
) -> Page[Row]:
    """`rows` is all that the caller may know of, `visible` what is still there: a cursor may have been deleted.

    Raises BadRequest for a cursor that is not among `rows`.
    """
    column = key.class_.id
    if query.after is not None:
        position = await session.scalar(rows.with_only_columns(key).where(column == query.after))
        if position is None:
            raise BadRequest("after: there is no such object to continue from.", param="after")
        rows = rows.where(key < position if query.order == "desc" else key > position)
    rows = rows.where(visible if visible is not None else true())
    rows = rows.order_by(key.desc() if query.order == "desc" else key.asc()).limit(query.limit + 1)
    found = list(await session.scalars(rows))
    return Page(found[: query.limit], len(found) > query.limit)


def list_out(data: list[Any], *, has_more: bool) -> dict[str, Any]:
    """The list envelope around things that have an `id`."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0].id if data else None,
        "last_id": data[-1].id if data else None,
        "has_more": has_more,
    }
