"""A background response's events: all that were, then the live ones, whichever gateway works on it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from app.inference import responses_running as running
from app.inference.responses_background import Backgrounds
from app.inference.responses_stream import Event
from app.store.session import Store

N_BATCHES = 50


async def follow(
    store: Store, backgrounds: Backgrounds, response_id: str, *, after: int, poll_seconds: float
) -> AsyncGenerator[list[Event]]:
    """Those with a sequence number beyond `after`; ends when the response is final and all is told."""
    while True:
        news = backgrounds.news(response_id)
        async with store.read() as session:
            # Whether it is over first: an event that comes with the end cannot be missed then.
            is_running = await running.still_running(session, [response_id])
            events = await running.told_after(session, response_id, after, n_batches=N_BATCHES)
        if events:
            after = events[-1]["sequence_number"]
            yield events
        elif not is_running:
            return
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(poll_seconds):
                    await news.wait()
