"""What a gateway does beside answering for the responses in the store."""

import asyncio

from app.inference import responses_store as stored
from app.inference.responses_background import Backgrounds
from app.settings import Settings
from app.store.session import Store
from app.store.tables import StoredResponse
from app.upkeep.loops import repeat
from app.upkeep.sweeping import OldRows, Swept, sweep_rows


def start_response_loops(settings: Settings, backgrounds: Backgrounds) -> list[asyncio.Task[None]]:
    """The caller cancels them, after it has closed `backgrounds`."""
    return [
        asyncio.create_task(repeat(name, step, pause_seconds))
        for name, step, pause_seconds in (
            ("hold background responses", backgrounds.look_after, settings.lease_seconds / 4),
            ("end cancelled responses", backgrounds.end_ended, settings.poll_seconds),
        )
    ]


async def sweep_responses(store: Store, days: float, *, dry: bool) -> list[Swept]:
    rows = OldRows("stored responses", StoredResponse.id, stored.are_old(days=days), stored.remove_all)
    return await sweep_rows(store, rows, dry=dry)
