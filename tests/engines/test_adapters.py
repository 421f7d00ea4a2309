"""Adapters: each request is answered by its own, whatever has to be loaded and unloaded for that."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.catalog.resolve import AdapterRef
from app.engines.adapters import AdapterRefused, NoAdapterSlot
from app.engines.engine import Engine, State
from app.errors import Unavailable
from app.files.storage import Storage
from tests.engines.running import engine_in, write_adapter
from tests.eventually import eventually

pytestmark = pytest.mark.anyio

QUESTION = "Who are you?"


@asynccontextmanager
async def running(folder: Path, *, slots: int) -> AsyncIterator[Engine]:
    async with engine_in(folder, max_loras=1, max_cpu_loras=slots, simulate_tokens_per_second=0) as engine:
        await engine.ensure_ready(within_seconds=20)
        yield engine


def write_adapters(folder: Path, count: int) -> list[AdapterRef]:
    """Each answers with its own name."""
    adapters = [write_adapter(Storage(folder)) for _ in range(count)]
    for adapter in adapters:
        path = Storage(folder).adapter(adapter.job_id, "adapter") / "answers.json"
        path.write_bytes(orjson.dumps({QUESTION: f"I am {adapter.id}"}))
    return adapters


@asynccontextmanager
async def held(engine: Engine, adapter: AdapterRef, *, within_seconds: float = 20) -> AsyncIterator[None]:
    async with engine.adapters.held(adapter, within_seconds=within_seconds):
        yield


async def use(engine: Engine, adapter: AdapterRef) -> None:
    async with held(engine, adapter):
        pass


async def ask(engine: Engine, adapter: AdapterRef) -> str:
    body = {"model": adapter.id, "messages": [{"role": "user", "content": QUESTION}]}
    async with held(engine, adapter), engine.client.chat(body, silence_seconds=20) as answer:
        completion = orjson.loads(await answer.read_all())
    text: str = completion["choices"][0]["message"]["content"]
    return text


def kill(engine: Engine, number: signal.Signals = signal.SIGKILL) -> None:
    assert engine.pid
    os.kill(engine.pid, number)


async def test_200_adapters_in_random_order_by_32_clients_each_answer_for_themselves(tmp_path: Path) -> None:
    adapters = write_adapters(tmp_path, 200)
    async with running(tmp_path, slots=16) as engine:

        async def client(seed: int) -> None:
            for adapter in random.Random(seed).sample(adapters, 15):
                assert await ask(engine, adapter) == f"I am {adapter.id}"

        await asyncio.gather(*(client(seed) for seed in range(32)))
        assert len(await engine.client.loaded_adapters()) <= 16
        assert set(engine.adapters.loaded) == await engine.client.loaded_adapters()


async def test_an_adapter_is_loaded_once_in_each_process(tmp_path: Path) -> None:
    [adapter] = write_adapters(tmp_path, 1)
    async with running(tmp_path, slots=2) as engine:
        for n_starts in (1, 2):
            await engine.ensure_ready(within_seconds=20)
            assert await engine.client.loaded_adapters() == set()
            await asyncio.gather(*(use(engine, adapter) for _ in range(8)))
            assert await engine.client.loaded_adapters() == {adapter.id}
            assert engine.log.path.read_text().count("Loaded new LoRA adapter") == 1
            assert engine.starts == n_starts
            kill(engine)
            await eventually(lambda: engine.state is State.STOPPED)
            assert not engine.has_adapter(adapter.id)


async def test_the_least_recently_used_goes_when_slots_run_out(tmp_path: Path) -> None:
    a, b, c = write_adapters(tmp_path, 3)
    async with running(tmp_path, slots=2) as engine:
        for adapter in (a, b, a, c):
            await use(engine, adapter)
        assert await engine.client.loaded_adapters() == {a.id, c.id}


async def test_one_in_use_never_goes_and_who_needs_its_slot_waits_for_it(tmp_path: Path) -> None:
    a, b = write_adapters(tmp_path, 2)
    async with running(tmp_path, slots=1) as engine:
        async with held(engine, a):
            waiting = asyncio.create_task(ask(engine, b))
            with pytest.raises(NoAdapterSlot):
                async with held(engine, b, within_seconds=0.2):
                    pass
            await engine.adapters.unload([a.id])
            assert await engine.client.loaded_adapters() == {a.id}
            assert not waiting.done()
        assert await waiting == f"I am {b.id}"
        assert await engine.client.loaded_adapters() == {b.id}


async def test_who_leaves_while_it_waits_for_a_slot_holds_up_nobody(tmp_path: Path) -> None:
    a, b, c = write_adapters(tmp_path, 3)
    async with running(tmp_path, slots=1) as engine:
        async with held(engine, a):
            leaving = asyncio.create_task(use(engine, b))
            await asyncio.sleep(0.05)
            leaving.cancel()
            await asyncio.wait([leaving])
        await asyncio.wait_for(use(engine, c), 10)
        assert engine.adapters._in_use == {}


async def test_an_adapter_that_is_refused_can_be_tried_again(tmp_path: Path) -> None:
    adapter = write_adapter(Storage(tmp_path), rank=512)
    async with running(tmp_path, slots=2) as engine:
        with pytest.raises(AdapterRefused):
            await use(engine, adapter)
        config = Storage(tmp_path).adapter(adapter.job_id, adapter.folder) / "adapter_config.json"
        config.write_text('{"r": 8}')
        await engine.adapters.preload(adapter)  # ahead of need, it is not tried again
        assert not engine.has_adapter(adapter.id)
        await use(engine, adapter)


async def test_an_engine_that_dies_while_it_loads_an_adapter_is_unavailable(tmp_path: Path) -> None:
    [adapter] = write_adapters(tmp_path, 1)
    async with running(tmp_path, slots=2) as engine:
        kill(engine, signal.SIGSTOP)
        loading = asyncio.create_task(use(engine, adapter))
        await asyncio.sleep(0.1)
        kill(engine)
        with pytest.raises(Unavailable):
            await loading


async def test_who_waits_for_a_slot_of_an_engine_that_dies_is_told(tmp_path: Path) -> None:
    a, b = write_adapters(tmp_path, 2)
    async with running(tmp_path, slots=1) as engine, held(engine, a):
        waiting = asyncio.create_task(use(engine, b))
        await asyncio.sleep(0.05)
        kill(engine)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(waiting, 10)


async def test_what_the_engine_says_it_has_is_believed(tmp_path: Path) -> None:
    a, b, c = write_adapters(tmp_path, 3)
    async with running(tmp_path, slots=2) as engine:
        await use(engine, a)
        assert await engine.client.unload_adapter(a.id) is None  # behind its back
        folder: Any = Storage(tmp_path).adapter(b.job_id, "adapter")
        assert await engine.client.load_adapter(b.id, folder) is None
        assert await engine.adapters.reconcile() == [b.id]
        await use(engine, a)
        await use(engine, c)
        assert await engine.client.loaded_adapters() == {a.id, c.id}  # b was nobody's, so it went first


async def test_what_is_loaded_ahead_of_need_takes_free_slots_only(tmp_path: Path) -> None:
    a, b, c = write_adapters(tmp_path, 3)
    async with running(tmp_path, slots=2) as engine:
        await use(engine, a)
        for adapter in (b, c):
            await engine.adapters.preload(adapter)
        assert await engine.client.loaded_adapters() == {a.id, b.id}
