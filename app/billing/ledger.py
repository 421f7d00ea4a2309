"""The append-only ledger: the only place that writes its rows, and the sums that follow from them."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import FromClause, Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.sums import HOUR_SECONDS, used
from app.errors import APIError
from app.ids import new_id
from app.store.session import Store, insert_if_absent
from app.store.tables import Balance, LedgerEntry

Kind = Literal["credit", "inference", "training", "warmup"]


class InsufficientFunds(APIError):
    status_code, type, code = 402, "insufficient_quota", "insufficient_quota"
    headers = {"x-should-retry": "false"}

    def __init__(self) -> None:
        super().__init__("The balance does not cover it. Add credit on the server: loam credit add --org NAME DOLLARS")


@dataclass(kw_only=True)
class Entry:
    """One credit (positive) or charge (negative). `source` is unique: appending it again changes nothing."""

    org_id: str
    key_id: str | None = None
    source: str
    kind: Kind
    amount_micros: int
    model: str | None = None
    gpu: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0  # among the completion's
    trained_tokens: int = 0
    gpu_seconds: float = 0.0
    price_version: str | None = None


@dataclass(frozen=True)
class Spend:
    """What an organisation used since some moment; amounts are positive micro-dollars."""

    token_micros: int
    gpu_micros: int
    n_tokens: int
    gpu_seconds: float


async def append(session: AsyncSession, entry: Entry) -> None:
    await session.execute(insert_if_absent(session, LedgerEntry).values(_row(entry)))


async def append_all(store: Store, entries: Sequence[Entry], *, price_version: str | None = None) -> None:
    """Many requests' charges in one commit, which has been made when this returns."""
    first, same = new_id("led"), {"created_at": time.time(), "price_version": price_version}
    await store.insert(LedgerEntry, [{"id": f"{first}-{n}", **vars(entry), **same} for n, entry in enumerate(entries)])


def _row(entry: Entry) -> dict[str, Any]:
    return {"id": new_id("led"), "created_at": time.time(), **vars(entry)}


async def balance_micros(session: AsyncSession, org_id: str) -> int:
    """The sum of the organisation's entries."""
    return await session.scalar(select(Balance.micros).where(Balance.org_id == org_id)) or 0


async def require_funds(session: AsyncSession, org_id: str) -> None:
    """Raises InsufficientFunds unless there is something left to spend."""
    if await balance_micros(session, org_id) <= 0:
        raise InsufficientFunds


async def list_entries(session: AsyncSession, org_id: str) -> list[LedgerEntry]:
    """Oldest first."""
    statement = select(LedgerEntry).where(LedgerEntry.org_id == org_id).order_by(LedgerEntry.created_at, LedgerEntry.id)
    return list(await session.scalars(statement))


async def spend_since(session: AsyncSession, org_id: str, since: float) -> Spend:
    """Inference counts as tokens; training and warm-ups, which hold GPUs, as GPU time.

    Whole hours are summed up already; of the one that `since` lies in, the entries are.
    """
    whole_at = math.ceil(since / HOUR_SECONDS) * HOUR_SECONDS
    entries = select(LedgerEntry).where(
        LedgerEntry.org_id == org_id,
        LedgerEntry.created_at >= since,
        LedgerEntry.created_at < whole_at,
        LedgerEntry.kind != "credit",
    )
    parts = (_spend(used(org_id, whole_at)), _spend(entries.subquery()))
    rows = [(await session.execute(part)).one() for part in parts]
    tokens, gpus, n_tokens, gpu_seconds = (sum(parts) for parts in zip(*rows, strict=True))
    return Spend(int(tokens), int(gpus), int(n_tokens), float(gpu_seconds))


def _spend(used: FromClause) -> Select[Any]:
    is_inference = used.c.kind == "inference"
    n_tokens = used.c.prompt_tokens + used.c.completion_tokens + used.c.trained_tokens
    sums = (
        func.sum(-used.c.amount_micros).filter(is_inference),
        func.sum(-used.c.amount_micros).filter(~is_inference),
        func.sum(n_tokens),
        func.sum(used.c.gpu_seconds),
    )
    return select(*(func.coalesce(each, 0) for each in sums))
