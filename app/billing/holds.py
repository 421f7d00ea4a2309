"""Parts of balances set aside before they are spent: rows with a lease, of gateways and of jobs.

What a job has cost already is kept beyond its lease: it is charged when the job ends, and must be there then.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import case, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.store.base import db_now
from app.store.session import insert_if_absent
from app.store.tables import Balance, Hold


@dataclass(frozen=True)
class Funding:
    """An organisation's balance, and how much of it others hold."""

    balance_micros: int
    others_micros: int

    @property
    def left_micros(self) -> int:
        return self.balance_micros - self.others_micros


async def look(session: AsyncSession, org_id: str, holder: str) -> Funding:
    """As it stands for `holder`; until the transaction ends nobody charges the organisation or holds of its money."""
    locked = select(Balance.micros).where(Balance.org_id == org_id).with_for_update()
    balance = await session.scalar(locked)
    held = case((Hold.expires_at >= db_now(), Hold.micros), else_=Hold.kept_micros)
    others = select(func.coalesce(func.sum(held), 0)).where(Hold.org_id == org_id, Hold.holder != holder)
    return Funding(balance or 0, int(await session.scalar(others) or 0))


async def put(
    session: AsyncSession, org_id: str, holder: str, micros: int, *, seconds: float, wanted_micros: int = 0
) -> None:
    """`holder` holds so much from now on, whatever it held. Only in a transaction that had a `look`."""
    held = {"micros": micros, "wanted_micros": wanted_micros, "expires_at": db_now() + seconds}
    await session.execute(insert_if_absent(session, Hold).values(holder=holder, org_id=org_id, **held))
    await session.execute(update(Hold).where(Hold.holder == holder, Hold.org_id == org_id).values(**held))


async def keep(session: AsyncSession, holder: str, micros: int, *, key_id: str | None) -> None:
    """So much of what `holder` holds stays held when its lease has run out; it was spent by that key."""
    await session.execute(update(Hold).where(Hold.holder == holder).values(kept_micros=micros, key_id=key_id))


async def extend(session: AsyncSession, holder: str, *, seconds: float) -> None:
    """What has run out already stays so: others may have it by now."""
    mine = update(Hold).where(Hold.holder == holder, Hold.expires_at >= db_now())
    await session.execute(mine.values(expires_at=db_now() + seconds))


async def release(session: AsyncSession, holder: str, org_ids: Sequence[str] | None = None) -> None:
    """All of it, or that of some organisations."""
    mine = delete(Hold).where(Hold.holder == holder)
    await session.execute(mine if org_ids is None else mine.where(Hold.org_id.in_(org_ids)))


async def wanted(session: AsyncSession, holder: str) -> set[str]:
    """The organisations of whose money somebody else lacks some."""
    rows = select(Hold.org_id).where(Hold.holder != holder, Hold.wanted_micros > 0, Hold.expires_at >= db_now())
    return set(await session.scalars(rows))
