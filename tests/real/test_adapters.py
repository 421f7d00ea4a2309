"""Many adapters of one base on the real engine, and the base: each request is answered by its own."""

import asyncio
import random
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import orjson
import pytest
from safetensors.numpy import save_file

from app.catalog.load import load_catalog
from app.catalog.resolve import AdapterRef, Target
from app.catalog.spec import GpuChoice
from app.devices.inventory import declared
from app.engines.pool import EnginePool
from app.files.storage import Storage
from app.files.zipped import zipped
from app.ids import new_id
from app.jobs.adapter_folder import adapter_members
from app.settings import ROOT, Settings
from app.store.session import Store
from tests.stores import SqliteStores

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

DEMO = load_catalog(ROOT / "models.yaml").models[0]
RANK = 8


def write_random_adapter(storage: Storage, seed: int) -> AdapterRef:
    """In PEFT's format; its weights are noise, of which every seed has its own."""
    job_id, noise = new_id("ftjob"), np.random.default_rng(seed)
    folder = storage.adapter(job_id, "adapter")
    folder.mkdir(parents=True)
    shape = orjson.loads((Path(DEMO.weights) / "config.json").read_bytes())
    hidden, values = shape["hidden_size"], shape["num_key_value_heads"] * shape["head_dim"]
    weights = {}
    for layer in range(shape["num_hidden_layers"]):
        name = f"base_model.model.model.layers.{layer}.self_attn.v_proj"
        weights[f"{name}.lora_A.weight"] = noise.normal(0, 0.6, (RANK, hidden)).astype(np.float32)
        weights[f"{name}.lora_B.weight"] = noise.normal(0, 0.6, (values, RANK)).astype(np.float32)
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK, "bias": "none"}
    config |= {"target_modules": ["v_proj"], "base_model_name_or_path": DEMO.weights}
    (folder / "adapter_config.json").write_bytes(orjson.dumps(config))
    return AdapterRef(job_id.replace("ftjob-", "adapter_"), job_id, "adapter")


def taken_home(storage: Storage, adapter: AdapterRef) -> AdapterRef:
    """The same adapter as a client has it, put where engines look for one."""
    job_id = new_id("ftjob")
    members = adapter_members(storage, load_catalog(ROOT / "models.yaml"), DEMO.id, adapter)
    ZipFile(BytesIO(b"".join(zipped(members)))).extractall(storage.adapter(job_id, "adapter"))
    return AdapterRef(job_id.replace("ftjob-", "adapter_"), job_id, "adapter")


async def ask(pool: EnginePool, adapter: AdapterRef | None) -> str:
    target = Target(DEMO, adapter, GpuChoice.parse("CPU"))
    body: Any = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
    body |= {"model": target.engine_name, "temperature": 0, "max_tokens": 8}
    async with pool.lease(target) as engine, engine.client.chat(body, silence_seconds=60) as answer:
        whole = orjson.loads(await answer.read_all())
    assert answer.status == 200, whole
    text: str = whole["choices"][0]["message"]["content"]
    return text


async def test_more_adapters_than_slots_and_their_base_answer_each_for_itself(
    tmp_path: Path, sqlite_stores: SqliteStores
) -> None:
    store, storage = Store(sqlite_stores.new_url()), Storage(tmp_path)
    settings = Settings(data_dir=tmp_path, max_loras=2, max_cpu_loras=3)
    pool = EnginePool(settings, store, storage, declared(["CPU:1"]))
    adapters = [None, *(write_random_adapter(storage, seed) for seed in range(6))]
    try:
        expected = [await ask(pool, adapter) for adapter in adapters]
        assert len(set(expected)) == len(adapters)
        assert adapters[1]
        assert await ask(pool, taken_home(storage, adapters[1])) == expected[1]

        async def client(seed: int) -> None:
            for position in random.Random(seed).sample(range(len(adapters)), len(adapters)):
                assert await ask(pool, adapters[position]) == expected[position]

        await asyncio.gather(*(client(seed) for seed in range(4)))
        [engine] = pool.engines
        assert len(await engine.client.loaded_adapters()) <= 3
        assert set(engine.adapters.loaded) == await engine.client.loaded_adapters()
    finally:
        await pool.drain(grace_seconds=1)
        await store.close()
