"""What a gateway does beside answering for the responses in the store."""

import asyncio

import structlog

from app.inference.responses_background import Backgrounds
from app.inference.responses_store import remove_old
from app.settings import Settings
from app.store.session import Store
from app.upkeep.loops import repeat

log = structlog.get_logger()

FORGET_SECONDS = 3600.0
MAX_REMOVED = 200  # in one transaction: others wait for it


def start_response_loops(settings: Settings, store: Store, backgrounds: Backgrounds) -> list[asyncio.Task[None]]:
    """The caller cancels them, after it has closed `backgrounds`."""
    days = settings.response_retention_days
    return [
        asyncio.create_task(repeat(name, step, pause_seconds))
        for name, step, pause_seconds in (
            ("hold background responses", backgrounds.look_after, settings.lease_seconds / 4),
            ("end cancelled responses", backgrounds.end_ended, settings.poll_seconds),
            ("forget old responses", lambda: forget_old(store, days=days), FORGET_SECONDS),
        )
    ]


async def forget_old(store: Store, *, days: float) -> None:
    n_removed = n_now = await _forget_some(store, days)
    while n_now == MAX_REMOVED:
        n_now = await _forget_some(store, days)
        n_removed += n_now
    if n_removed:
        log.info("old responses removed", responses=n_removed)


async def _forget_some(store: Store, days: float) -> int:
    async with store.begin() as session:
        return await remove_old(session, days=days, limit=MAX_REMOVED)
