"""GET /balance/…: what is left, and what was spent on what."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.ledger import balance_micros, spend_since
from app.billing.prices import cents
from app.billing.sums import HOUR_SECONDS
from app.deps import SessionDep
from app.errors import BadRequest
from app.moments import month_began
from app.orgs.auth import CurrentOrg

router = APIRouter(tags=["balance"])

MAX_WINDOW_HOURS = 24 * 366


class Balance(BaseModel):
    organization_id: str
    balance_cents: int
    balance_dollars: float
    last_updated: datetime


class SpendOut(BaseModel):
    token_spend_cents: int
    gpu_spend_cents: int
    total_spend_cents: int


class UsageOut(SpendOut):
    token_count: int
    gpu_hours: float


class UsagePeriods(BaseModel):
    current_month: UsageOut
    last_30_days: UsageOut


class Window(SpendOut):
    window_hours: int


class Windows(BaseModel):
    windows: list[Window]


@router.get("/balance/current")
async def get_balance(org_id: CurrentOrg, session: SessionDep) -> Balance:
    left = cents(await balance_micros(session, org_id))
    return Balance(
        organization_id=org_id, balance_cents=left, balance_dollars=left / 100, last_updated=datetime.now(UTC)
    )


@router.get("/balance/usage")
async def get_usage(org_id: CurrentOrg, session: SessionDep) -> UsagePeriods:
    """The calendar month (UTC) so far, and the last 30 days."""
    now = datetime.now(UTC)
    return UsagePeriods(
        current_month=UsageOut(**await _spend(session, org_id, month_began(now).timestamp())),
        last_30_days=UsageOut(**await _spend(session, org_id, now.timestamp() - 30 * 24 * HOUR_SECONDS)),
    )


@router.get("/balance/usage/windows")
async def get_usage_windows(
    org_id: CurrentOrg, session: SessionDep, hours: Annotated[str, Query(examples=["24,168"])] = "24,168"
) -> Windows:
    now = datetime.now(UTC).timestamp()
    return Windows(
        windows=[
            Window(window_hours=h, **await _spend(session, org_id, now - h * HOUR_SECONDS)) for h in parse_hours(hours)
        ]
    )


def parse_hours(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 20 or not all(map(_is_hours, parts)):
        raise BadRequest(
            f"hours must be up to 20 whole numbers from 1 to {MAX_WINDOW_HOURS}, like 24,168", param="hours"
        )
    return [int(part) for part in parts]


def _is_hours(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 9 and 0 < int(text) <= MAX_WINDOW_HOURS


async def _spend(session: AsyncSession, org_id: str, since: float) -> dict[str, Any]:
    spend = await spend_since(session, org_id, since)
    tokens, gpus = cents(spend.token_micros), cents(spend.gpu_micros)
    return {
        "token_spend_cents": tokens,
        "gpu_spend_cents": gpus,
        "total_spend_cents": tokens + gpus,
        "token_count": spend.n_tokens,
        "gpu_hours": round(spend.gpu_seconds / HOUR_SECONDS, 6),
    }
