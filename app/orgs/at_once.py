"""Limits of how many requests run at once: exact on a gateway, and shared with the others through the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import APIError
from app.store.base import db_now
from app.store.session import insert_into
from app.store.tables import UnderWay


class TooManyAtOnce(APIError):
    status_code, type, code = 429, "rate_limit_error", "too_many_requests_at_once"
    headers = {"Retry-After": "1"}

    def __init__(self, crowd: "Crowd") -> None:
        super().__init__(
            f"{crowd.limit} requests of {crowd.whose} may be under way at once, and are; try again when one has ended."
        )


@dataclass(slots=True)
class Crowd:
    """The requests under way of one key or organisation.

    `mine` run here, and `told` is how many the others last heard of; `others` ran there when we last heard of them.
    """

    whose: str
    limit: int
    heard_at: float
    used_at: float
    mine: int = 0
    told: int = 0
    others: int = 0

    def left(self, now: float) -> float:
        """For how many more there is room at this moment, as a bucket would say it."""
        return self.limit - self.mine - self.others

    def hear(self, others: int, told: int, now: float) -> None:
        self.others, self.told, self.heard_at = others, told, now


async def tell(session: AsyncSession, gateway: str, numbers: Mapping[str, int], *, seconds: float) -> None:
    """So many requests of each subject are under way here; unless it is told again, that is forgotten after a while."""
    expires_at = db_now() + seconds
    rows = [
        {"gateway": gateway, "subject": subject, "number": number, "expires_at": expires_at}
        for subject, number in numbers.items()
    ]
    row = insert_into(session, UnderWay).values(rows)
    new = {"number": row.excluded.number, "expires_at": row.excluded.expires_at}
    await session.execute(row.on_conflict_do_update(index_elements=[UnderWay.gateway, UnderWay.subject], set_=new))


async def hear(session: AsyncSession, gateway: str, subjects: Sequence[str]) -> dict[str, int]:
    """How many are under way on other gateways."""
    others = select(UnderWay.subject, func.sum(UnderWay.number)).where(
        UnderWay.subject.in_(subjects), UnderWay.gateway != gateway, UnderWay.expires_at >= db_now()
    )
    return {subject: int(number) for subject, number in await session.execute(others.group_by(UnderWay.subject))}
