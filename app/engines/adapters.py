"""The LoRA adapters of one engine process: which it has, who uses them, and which goes when another needs its slot."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import structlog

from app.catalog.resolve import AdapterRef
from app.engines.client import EngineClient
from app.errors import Unavailable
from app.files.storage import Storage

log = structlog.get_logger()


class AdapterRefused(Unavailable):
    code = "adapter_not_loaded"


class NoAdapterSlot(Unavailable):
    """As many fine-tunes of the base are in use at once as the engine has slots."""

    code = "no_adapter_slot"


class Adapters:
    """Loaded when one is needed; then the least recently used goes, but never one that a request in flight uses.

    It lives and dies with its process: the next one begins with none. Loads and unloads go one after the other.
    """

    def __init__(self, client: EngineClient, storage: Storage, *, slots: int) -> None:
        self._client = client
        self._storage = storage
        self._slots = slots
        self._loaded: dict[str, None] = {}  # the least recently used first
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._refused: set[str] = set()
        self._in_use: Counter[str] = Counter()
        self._changing = asyncio.Lock()
        self._released = asyncio.Event()
        self._is_closed = False
        self._is_asleep = False

    def __contains__(self, adapter_id: str) -> bool:
        return adapter_id in self._loaded

    @property
    def loaded(self) -> list[str]:
        return list(self._loaded)

    @asynccontextmanager
    async def held(self, adapter: AdapterRef, *, within_seconds: float) -> AsyncIterator[None]:
        """Loaded, and kept so until the block ends. Raises AdapterRefused, NoAdapterSlot."""
        self._in_use[adapter.id] += 1
        try:
            await self._ensure_loaded(adapter, within_seconds)
            yield
        finally:
            self.let_go(adapter.id)

    def hold(self, adapter_id: str) -> bool:
        """What `held` does for one that is loaded, until `let_go`; False, and nothing done, for any other."""
        if adapter_id not in self._loaded:
            return False
        self._in_use[adapter_id] += 1
        self._touch(adapter_id)
        return True

    def let_go(self, adapter_id: str) -> None:
        self._in_use[adapter_id] -= 1
        if not self._in_use[adapter_id]:
            del self._in_use[adapter_id]
            self._released.set()

    async def preload(self, adapter: AdapterRef) -> None:
        """Ahead of need, where a slot is free; one that was refused once waits until somebody asks for it."""
        async with self._changing:
            is_wanted = adapter.id not in self._loaded and adapter.id not in self._refused
            if is_wanted and len(self._loaded) < self._slots:
                await self._load(adapter)

    async def unload(self, adapter_ids: Collection[str]) -> None:
        """Those of them that nobody uses at this moment."""
        async with self._changing:
            for adapter_id in adapter_ids:
                if adapter_id in self._loaded and not self._in_use[adapter_id]:
                    await self._unload(adapter_id)

    async def reconcile(self) -> list[str]:
        """Believe the engine what it has loaded; returns that. Raises OSError where it does not answer."""
        async with self._changing:
            actual = await self._client.loaded_adapters()
            unknown = dict.fromkeys(sorted(actual - self._loaded.keys()))
            self._loaded = {**unknown, **{name: None for name in self._loaded if name in actual}}
            return self.loaded

    async def fall_asleep(self) -> None:
        """Returns when no load is under way; none begins until `wake`."""
        self._is_asleep = True
        async with self._changing:
            pass

    async def wake(self) -> None:
        """None is loaded now: a sleep may have spoilt them, and a name that the engine knows would not be loaded again.

        Raises OSError, AdapterRefused.
        """
        async with self._changing:
            for name in await self._client.loaded_adapters():
                if refusal := await self._client.unload_adapter(name):
                    raise AdapterRefused(f"The engine does not unload {name}: {refusal}")
            self._loaded = {}
            self._is_asleep = False

    def close(self) -> None:
        """The process ends: nobody need wait for a slot of it any more."""
        self._is_closed = True
        self._released.set()

    async def _ensure_loaded(self, adapter: AdapterRef, within_seconds: float) -> None:
        if adapter.id not in self._loaded:
            load = self._loads.get(adapter.id)
            if load is None:  # one load serves all who wait, and goes on if they leave
                load = self._loads[adapter.id] = asyncio.create_task(self._load_when_possible(adapter))
                load.add_done_callback(lambda done: self._end_load(adapter.id, done))
            await asyncio.wait([load], timeout=within_seconds)
            if not load.done():
                raise NoAdapterSlot(
                    f"All {self._slots} fine-tuned models that this engine holds are in use; try again."
                )
            load.result()
        self._touch(adapter.id)

    def _touch(self, adapter_id: str) -> None:
        """It is the most recently used one now."""
        self._loaded.pop(adapter_id, None)
        self._loaded[adapter_id] = None

    def _end_load(self, adapter_id: str, load: asyncio.Task[None]) -> None:
        del self._loads[adapter_id]
        if not load.cancelled():
            load.exception()  # whoever waited has it; there may be nobody

    async def _load_when_possible(self, adapter: AdapterRef) -> None:
        while not self._is_closed:
            async with self._changing:
                if adapter.id in self._loaded:
                    return
                if await self._make_room():
                    await self._load(adapter)
                    return
                self._released.clear()
            await self._released.wait()
        raise Unavailable("The engine has just stopped; try again.")

    async def _make_room(self) -> bool:
        """False when every slot is in use."""
        while len(self._loaded) >= self._slots:
            idle = next((name for name in self._loaded if not self._in_use[name]), None)
            if idle is None:
                return False
            await self._unload(idle)
        return True

    async def _load(self, adapter: AdapterRef) -> None:
        if self._is_asleep:
            raise Unavailable("The engine has just fallen asleep; try again.")
        folder = self._storage.adapter(adapter.job_id, adapter.folder)
        refusal = await self._client.load_adapter(adapter.id, folder)
        if refusal:
            self._refused.add(adapter.id)
            log.error("adapter refused", adapter=adapter.id, reason=refusal)
            raise AdapterRefused("The engine could not load this fine-tuned model; try again.")
        self._refused.discard(adapter.id)
        self._loaded[adapter.id] = None

    async def _unload(self, adapter_id: str) -> None:
        del self._loaded[adapter_id]  # first, so that nobody relies on it from here on
        refusal = await self._client.unload_adapter(adapter_id)
        if refusal:  # `reconcile` sees whether it is still there
            log.warning("adapter not unloaded", adapter=adapter_id, reason=refusal)
