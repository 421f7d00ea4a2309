"""Many adapters of one base on the real engine, and the base: each request is answered by its own."""

import asyncio
import random
from collections.abc import AsyncIterator
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
from app.engines.client import Token
from app.engines.engine import State
from app.engines.pool import EnginePool
from app.engines.trial import ChangesNothing, NoNumbers, try_everywhere
from app.files.storage import Storage
from app.files.zipped import zipped
from app.ids import new_id
from app.jobs.adapter_folder import adapter_members
from app.settings import ROOT, Settings
from app.store.session import Store
from tests.stores import SqliteStores
from workers.chat_data import IGNORED, load_encoder
from workers.merge import main as merge

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

DEMO = load_catalog(ROOT / "models.yaml").models[0]
RANK = 8
CPU = GpuChoice.parse("CPU")


def write_random_adapter(storage: Storage, seed: int, *, scale: float = 0.6) -> AdapterRef:
    """In PEFT's format; its weights are noise, of which every seed has its own. `scale`: of all B."""
    job_id, noise = new_id("ftjob"), np.random.default_rng(seed)
    folder = storage.adapter(job_id, "adapter")
    folder.mkdir(parents=True)
    shape = orjson.loads((Path(DEMO.weights) / "config.json").read_bytes())
    hidden, values = shape["hidden_size"], shape["num_key_value_heads"] * shape["head_dim"]
    weights = {}
    for layer in range(shape["num_hidden_layers"]):
        name = f"base_model.model.model.layers.{layer}.self_attn.v_proj"
        weights[f"{name}.lora_A.weight"] = noise.normal(0, 0.6, (RANK, hidden)).astype(np.float32)
        weights[f"{name}.lora_B.weight"] = (scale * noise.normal(size=(values, RANK))).astype(np.float32)
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
    target = Target(DEMO, adapter, CPU)
    body: Any = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
    body |= {"model": target.engine_name, "temperature": 0, "max_tokens": 8}
    async with pool.lease(target) as engine, engine.client.chat(body, silence_seconds=60) as answer:
        whole = orjson.loads(await answer.read_all())
    assert answer.status == 200, whole
    text: str = whole["choices"][0]["message"]["content"]
    return text


ROW: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris."},
    ],
    "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def storage(folder: Path) -> Storage:
    return Storage(folder)


@pytest.fixture(scope="module")
async def pool(folder: Path, storage: Storage, sqlite_stores: SqliteStores) -> AsyncIterator[EnginePool]:
    """One engine of the demo model for all of them, and room for another."""
    store = Store(sqlite_stores.new_url())
    settings = Settings(data_dir=folder, max_loras=2, max_cpu_loras=3)
    pool = EnginePool(settings, store, storage, declared(["CPU:2"]))
    yield pool
    await pool.drain(grace_seconds=1)
    await store.close()


async def test_a_fine_tune_is_asked_with_the_very_tokens_that_it_was_trained_behind(
    pool: EnginePool, storage: Storage
) -> None:
    """Engines take the base's template for its adapters too, and the base's is what the recipe trains with."""
    [example] = load_encoder(DEMO.weights, max_seq_length=4096, train_on_inputs=False).encode(ROW)
    adapter = write_random_adapter(storage, 1)
    other = storage.adapter(adapter.job_id, "adapter") / "chat_template.jinja"
    other.write_text("whatever an adapter brings is left aside")
    async with pool.lease(Target(DEMO, adapter, CPU)) as engine:
        body = {**ROW, "messages": ROW["messages"][:-1], "model": adapter.id}
        async with engine.client.tokenize(body, silence_seconds=60) as answer:
            asked = orjson.loads(await answer.read_all())["tokens"]
    assert example.input_ids[: len(asked)] == asked
    assert [label != IGNORED for label in example.labels].index(True) == len(asked)


async def test_more_adapters_than_slots_and_their_base_answer_each_for_itself(
    pool: EnginePool, storage: Storage
) -> None:
    adapters = [None, *(write_random_adapter(storage, seed) for seed in range(6))]
    expected = [await ask(pool, adapter) for adapter in adapters]
    assert len(set(expected)) == len(adapters)
    assert adapters[1]
    assert await ask(pool, taken_home(storage, adapters[1])) == expected[1]

    async def client(seed: int) -> None:
        for position in random.Random(seed).sample(range(len(adapters)), len(adapters)):
            assert await ask(pool, adapters[position]) == expected[position]

    await asyncio.gather(*(client(seed) for seed in range(4)))
    [engine] = pool.find(DEMO.id)
    assert len(await engine.client.loaded_adapters()) <= 3
    assert set(engine.adapters.loaded) == await engine.client.loaded_adapters()


async def test_a_fine_tune_that_was_merged_is_a_model_that_says_the_same(
    pool: EnginePool, storage: Storage, tmp_path: Path
) -> None:
    adapter = write_random_adapter(storage, 2, scale=0.1)
    assert merge(DEMO.weights, storage.adapter(adapter.job_id, "adapter"), tmp_path) == 0
    merged = DEMO.model_copy(update={"id": "loam/merged", "weights": str(tmp_path), "trainable": False})
    base, tuned, whole = [
        await first_token(pool, target)
        for target in (Target(DEMO, None, CPU), Target(DEMO, adapter, CPU), Target(merged, None, CPU))
    ]
    assert whole.text == tuned.text
    assert whole.alternatives == pytest.approx(tuned.alternatives, abs=0.1)  # both are rounded to bf16, each elsewhere
    assert whole.alternatives != pytest.approx(base.alternatives, abs=0.3)


async def first_token(pool: EnginePool, target: Target) -> Token:
    async with pool.lease(target) as engine:
        return (await engine.client.say_greedily(target.engine_name, within_seconds=60))[0]


async def test_a_trial_passes_the_faintest_adapter_that_changes_anything_and_none_that_is_at_fault_itself(
    pool: EnginePool, storage: Storage
) -> None:
    """Also beside the work of others. What is no number would stay in the engine's cache."""

    async def trial(scale: float) -> None:
        adapter = write_random_adapter(storage, 1, scale=scale)
        await try_everywhere(pool, Target(DEMO, adapter, CPU), org_id="org_1")

    await asyncio.gather(trial(1e-5), *(ask(pool, None) for _ in range(4)))
    with pytest.raises(ChangesNothing):
        await trial(0.0)
    [engine] = pool.find(DEMO.id)
    assert engine.is_ready
    with pytest.raises(NoNumbers):
        await trial(np.nan)
    assert engine.state is State.STOPPED
