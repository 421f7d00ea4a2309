"""The append-only ledger: the only place that writes its rows, and the sums that follow from them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

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


@dataclass(frozen=True, kw_only=True)
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


async def append_all(store: Store, entries: Sequence[Entry]) -> None:
    """Many requests' charges in one commit, which has been made when this returns."""
    first, now = new_id("led"), time.time()
    await store.insert(
        LedgerEntry, [{"id": f"{first}-{n}", "created_at": now, **vars(entry)} for n, entry in enumerate(entries)]
    )


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
    """Inference counts as tokens; training and warm-ups, which hold GPUs, as GPU time."""
    inference = LedgerEntry.kind == "inference"
    n_tokens = LedgerEntry.prompt_tokens + LedgerEntry.completion_tokens + LedgerEntry.trained_tokens
    row = (
        await session.execute(
            select(
                func.sum(-LedgerEntry.amount_micros).filter(inference),
                func.sum(-LedgerEntry.amount_micros).filter(~inference),
                func.sum(n_tokens),
                func.sum(LedgerEntry.gpu_seconds),
            ).where(LedgerEntry.org_id == org_id, LedgerEntry.kind != "credit", LedgerEntry.created_at >= since)
        )
    ).one()
    return Spend(int(row[0] or 0), int(row[1] or 0), int(row[2] or 0), float(row[3] or 0.0))
