"""Sleep: an engine process that keeps what took long to start, and gives its GPU memory back until it is needed."""

import asyncio
from collections.abc import Sequence
from enum import IntEnum

import psutil
import structlog

from app.catalog.spec import ModelSpec
from app.engines.adapters import Adapters
from app.engines.client import EngineClient, Token

log = structlog.get_logger()

SLEEP_SECONDS = WAKE_SECONDS = CANARY_SECONDS = 60.0
HOST_MEMORY_KEPT = 0.2  # of all the host has: for others
LOGPROB_TOLERANCE = 0.1


class Level(IntEnum):
    """vLLM's own numbers."""

    KEEP_WEIGHTS = 1  # in host memory
    DROP_WEIGHTS = 2  # they are read again at the wake


class WakeFailed(Exception):
    """It is not the engine that fell asleep."""


def choose_level(weights_bytes: float, *, available_bytes: float, total_bytes: float) -> Level:
    """The weights stay in host memory while that leaves enough of it for everybody else."""
    is_roomy = available_bytes - weights_bytes >= HOST_MEMORY_KEPT * total_bytes
    return Level.KEEP_WEIGHTS if is_roomy else Level.DROP_WEIGHTS


def says_the_same(before: Sequence[Token], after: Sequence[Token]) -> bool:
    """The same words, as sure of each of them as before."""
    if [token.text for token in before] != [token.text for token in after]:
        return False
    pairs = zip(before, after, strict=True)
    return all(abs(was.logprob - now.logprob) <= LOGPROB_TOLERANCE for was, now in pairs)


class Sleep:
    """Of one process. A sleep may have spoilt weights and adapters: a wake is believed by its canary only."""

    def __init__(self, client: EngineClient, adapters: Adapters, model: ModelSpec) -> None:
        self._client = client
        self._adapters = adapters
        self._model = model
        self._canary: Sequence[Token] = ()
        self._level: Level | None = None  # None while awake, and where it did not fall asleep whole

    async def prepare(self) -> None:
        """What a wake is judged by, asked of the process while it is fresh. Raises OSError, EngineRefused."""
        self._canary = await self._ask_canary()

    async def begin(self) -> None:
        """Nobody may use the process until `wake`. Raises OSError, EngineRefused."""
        memory = psutil.virtual_memory()
        weights_bytes = self._model.parameters_billions * 1e9 * self._model.bytes_per_parameter
        level = choose_level(weights_bytes, available_bytes=memory.available, total_bytes=memory.total)
        await self._adapters.fall_asleep()
        await self._client.sleep(level, within_seconds=SLEEP_SECONDS)
        self._level = level
        log.info("engine sleeps", model=self._model.id, level=int(level))

    async def wake(self, *, start_seconds: float) -> None:
        """Weights that are read again may take as long as in a start. Raises OSError, EngineRefused, WakeFailed."""
        if self._level is None:
            raise WakeFailed("it had not fallen asleep")
        within_seconds = WAKE_SECONDS if self._level is Level.KEEP_WEIGHTS else start_seconds
        async with asyncio.timeout(within_seconds):
            await self._restore(self._level, within_seconds)
            await self._adapters.wake()
        if not says_the_same(self._canary, await self._ask_canary()):
            raise WakeFailed("it does not say what it said before")
        self._level = None

    async def _restore(self, level: Level, within_seconds: float) -> None:
        client = self._client
        if level is Level.DROP_WEIGHTS:  # the cache comes last: a reload needs the room that it takes
            await client.wake_up("weights", within_seconds=within_seconds)
            await client.reload_weights(within_seconds=within_seconds)
            await client.wake_up("kv_cache", within_seconds=within_seconds)
        else:
            await client.wake_up(within_seconds=within_seconds)
        if await client.is_sleeping():
            raise WakeFailed("it sleeps on")
        if not await client.reset_prefix_cache():
            raise WakeFailed("it does not give up its old prefix cache")

    async def _ask_canary(self) -> list[Token]:
        async with asyncio.timeout(CANARY_SECONDS):
            return await self._client.say_greedily(self._model.id, within_seconds=CANARY_SECONDS)
