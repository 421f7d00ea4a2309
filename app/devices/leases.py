"""Who holds which device. Leases are rows with an end, judged by the database's clock."""

from collections.abc import Sequence

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalog.spec import GpuChoice
from app.devices.inventory import Device
from app.store.base import db_now
from app.store.session import insert_if_absent
from app.store.tables import DeviceLease


async def acquire(
    session: AsyncSession, devices: Sequence[Device], choice: GpuChoice, holder: str, *, seconds: float
) -> list[Device]:
    """`choice.count` devices of the type, all or none: an empty list when too few are free."""
    taken = await held(session)
    free = [d for d in devices if d.type == choice.type and d.name not in taken][: choice.count]
    if len(free) < choice.count:
        return []
    await session.execute(delete(DeviceLease).where(DeviceLease.expires_at < db_now()))
    for device in free:
        row = {"device": device.name, "holder": holder, "expires_at": db_now() + seconds}
        # Two may want the same free device: the second waits for the first's commit, and then inserts nothing.
        statement = insert_if_absent(session, DeviceLease).values(row).returning(DeviceLease.device)
        if await session.scalar(statement) is None:
            await release(session, holder)
            return []
    return free


async def held(session: AsyncSession) -> set[str]:
    rows = await session.scalars(select(DeviceLease.device).where(DeviceLease.expires_at >= db_now()))
    return set(rows)


async def holders(session: AsyncSession) -> dict[str, str]:
    """By the device's name."""
    rows = select(DeviceLease.device, DeviceLease.holder).where(DeviceLease.expires_at >= db_now())
    return {row.device: row.holder for row in await session.execute(rows)}


async def is_held_for(session: AsyncSession, prefix: str) -> bool:
    """Whether any holder whose name begins so has a device."""
    rows = select(DeviceLease.device).where(DeviceLease.holder.startswith(prefix, autoescape=True))
    return await session.scalar(rows.where(DeviceLease.expires_at >= db_now()).limit(1)) is not None


async def extend(session: AsyncSession, holder: str, *, seconds: float) -> int:
    """How many devices the holder still has: others may have taken those whose lease ran out."""
    mine = update(DeviceLease).where(DeviceLease.holder == holder)
    result = await session.execute(mine.values(expires_at=db_now() + seconds))
    assert isinstance(result, CursorResult)
    return result.rowcount


async def release(session: AsyncSession, holder: str) -> None:
    await session.execute(delete(DeviceLease).where(DeviceLease.holder == holder))
