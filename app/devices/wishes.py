"""Who would use devices now, were they free: a worker writes it down for a job, a gateway for a request, and engines
of their host give way.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Select, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalog.spec import GpuChoice
from app.store.base import db_now
from app.store.session import insert_if_absent
from app.store.tables import DeviceWish


@dataclass(frozen=True)
class Wish:
    holder: str
    gpu: GpuChoice
    waited_seconds: float


def owed(wishes: Sequence[Wish], gateway_prefix: str, own_prefix: str) -> list[Wish]:
    """Those that a gateway gives way to: all of jobs, and of other gateways those that are older than its own.

    Of two gateways that wait for one device, each would else leave it to the other. `wishes`: the oldest first.
    """
    own_types: set[str] = set()
    found = []
    for each in wishes:
        if each.holder.startswith(own_prefix):
            own_types.add(each.gpu.type)
        elif not each.holder.startswith(gateway_prefix) or each.gpu.type not in own_types:
            found.append(each)
    return found


async def wish(session: AsyncSession, host: str, holder: str, gpu: GpuChoice, *, seconds: float) -> None:
    """For `seconds` from now; it counts from its first time, as long as it is repeated: how many of the devices must
    come from others changes with what one's own engines do.
    """
    mine = (DeviceWish.holder == holder, DeviceWish.host == host)
    await session.execute(delete(DeviceWish).where(*mine, DeviceWish.expires_at < db_now()))
    row = {"holder": holder, "host": host, "gpu": str(gpu), "wished_at": db_now(), "expires_at": db_now() + seconds}
    await session.execute(insert_if_absent(session, DeviceWish).values(row))
    await session.execute(update(DeviceWish).where(*mine).values(gpu=str(gpu), expires_at=db_now() + seconds))


async def withdraw(session: AsyncSession, host: str, holder: str) -> None:
    await session.execute(delete(DeviceWish).where(DeviceWish.host == host, DeviceWish.holder == holder))


async def withdraw_others(
    session: AsyncSession, host: str, waiting: Collection[str] | Select[str], *, prefix: str
) -> None:
    """What was wished on this host for any but these, among holders whose names begin so."""
    among = (DeviceWish.host == host, DeviceWish.holder.startswith(prefix, autoescape=True))
    await session.execute(delete(DeviceWish).where(*among, DeviceWish.holder.not_in(waiting)))


async def list_wishes(session: AsyncSession, host: str) -> list[Wish]:
    """The oldest first."""
    rows = select(DeviceWish.holder, DeviceWish.gpu, db_now() - DeviceWish.wished_at)
    rows = rows.where(DeviceWish.host == host, DeviceWish.expires_at >= db_now())
    found = await session.execute(rows.order_by(DeviceWish.wished_at, DeviceWish.holder))
    return [Wish(holder, GpuChoice.parse(gpu), waited_seconds) for holder, gpu, waited_seconds in found]
