"""Engines give way to queued jobs: both need devices, and a job cannot ask an engine itself."""

from app.engines.pool import EnginePool
from app.jobs import queue
from app.store.session import Store


async def make_room(store: Store, pool: EnginePool) -> None:
    """Stop idle engines for the oldest queued job of each GPU type."""
    async with store.read() as session:
        waiting = await queue.gpus_waited_for(session)
    oldest = {gpu.type: gpu for gpu in reversed(waiting)}
    for gpu in oldest.values():
        await pool.give_way(gpu)
