"""GET /usage: what was used, by time, key, model, kind and GPU; as JSON or as CSV."""

import csv
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from operator import attrgetter, itemgetter
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from app.billing.prices import cents
from app.billing.sums import DAY_SECONDS
from app.billing.usage import Asked, Bucket, Figures, Group, UsageRow, groups_of, usage
from app.deps import SessionDep
from app.errors import BadRequest
from app.moments import epoch_seconds, iso
from app.orgs.auth import CurrentOrg

router = APIRouter(tags=["balance"])

CSV = "text/csv"
USUAL_DAYS = 30


class UsageQuery(BaseModel):
    """`start` and `end`: ISO 8601 or epoch seconds, UTC where no zone is told; whole hours are counted."""

    start: datetime | None = None
    end: datetime | None = None
    bucket: Bucket = Bucket.DAY
    group_by: str = "model,kind"
    key: str | None = None
    model: str | None = None
    kind: str | None = None
    gpu: str | None = None
    format: Literal["json", "csv"] | None = None


class UsageOut(BaseModel):
    """Of what was not grouped by, `key`, `model`, `kind` and `gpu` are null."""

    start: datetime
    key: str | None
    model: str | None
    kind: str | None
    gpu: str | None
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    trained_tokens: int
    gpu_seconds: float
    cost_micros: int
    cost_cents: int


NAMES = tuple(UsageOut.model_fields)


class UsageList(BaseModel):
    object: Literal["list"]
    bucket: Bucket
    data: list[UsageOut]


@router.get("/usage", response_model=UsageList, responses={200: {"content": {CSV: {}}}})
async def list_usage(
    request: Request, query: Annotated[UsageQuery, Query()], org_id: CurrentOrg, session: SessionDep
) -> Response:
    """Rows oldest first: one for each bucket and each of what is grouped by."""
    asked = asked_of(query, time.time())
    rows = rows_of(asked, await usage(session, org_id, asked))
    if query.format == "csv" or (query.format is None and CSV in request.headers.get("accept", "")):
        return Response(as_csv(rows), media_type=CSV)
    told = {"object": "list", "bucket": asked.bucket, "data": rows}
    return Response(orjson.dumps(told), media_type="application/json")


def asked_of(query: UsageQuery, now: float) -> Asked:
    """Raises BadRequest."""
    end = epoch_seconds(query.end) if query.end else now
    start = epoch_seconds(query.start) if query.start else end - USUAL_DAYS * DAY_SECONDS
    if start >= end:
        raise BadRequest("start must be before end.", param="start")
    given = {group: getattr(query, group.value) for group in Group}
    only = {group: value for group, value in given.items() if value is not None}
    return Asked(start, end, query.bucket, groups_of(query.group_by), only)


def rows_of(asked: Asked, found: Sequence[UsageRow]) -> list[dict[str, Any]]:
    """Each as a `UsageOut`, which is not made of it: for thousands of rows that takes longer than to find them."""
    told_of = itemgetter(*(asked.groups.index(group) if group in asked.groups else -1 for group in Group))
    figures_of = attrgetter(*(figure.name for figure in fields(Figures)))
    starts = {moment: iso(moment) for moment in {row.start_at for row in found}}
    rows = []
    for row in found:
        groups = told_of((*row.groups, None))
        values = (starts[row.start_at], *groups, *figures_of(row.figures), cents(row.figures.cost_micros))
        rows.append(dict(zip(NAMES, values, strict=True)))
    return rows


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(NAMES)
    writer.writerows(row.values() for row in rows)
    return out.getvalue()
