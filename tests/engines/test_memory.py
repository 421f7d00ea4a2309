"""Memory: what an engine needs, by the numbers."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.catalog.load import load_catalog
from app.catalog.spec import GpuChoice
from app.devices.inventory import declared
from app.engines.fitting import check_memory, read_config, size_of
from app.engines.memory import GIB, DoesNotFit, Need, check_fits, estimate
from app.settings import ROOT, Settings
from tests.rows import CATALOG

MODEL = CATALOG.models[0].model_copy(update={"context_length": 1000, "max_lora_rank": 8})
CONFIG: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 100,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
CACHE = 2 * 2 * 1000 * 2 * 32 * 2  # layers, keys and values, tokens, heads, their size, bytes
WINDOWED = {"sliding_window": 100, "layer_types": ["full_attention", "sliding_attention"]}


@pytest.mark.parametrize(
    ("changes", "cache"),
    [
        ({}, CACHE),
        ({"num_key_value_heads": None}, 2 * CACHE),  # as many as there are heads
        ({"head_dim": None}, CACHE // 2),  # 64 / 4
        ({**WINDOWED}, CACHE // 2 + CACHE // 20),
        ({"sliding_window": 100}, CACHE),  # Qwen tells of a window that no layer uses
        ({"kv_lora_rank": 512}, 0),
        ({"num_hidden_layers": None}, 0),
        ({"hidden_size": "many"}, 0),
    ],
)
def test_the_cache_of_a_whole_context_follows_from_the_config(changes: dict[str, Any], cache: int) -> None:
    need = estimate(MODEL, {**CONFIG, **changes}, 5, n_adapters=1)
    assert (need.weights_bytes, need.cache_bytes) == (5, cache)
    wrapped = estimate(MODEL, {"text_config": {**CONFIG, **changes}}, 5, n_adapters=1)
    assert wrapped == need


def test_adapters_need_room_on_every_matrix_of_a_model_that_can_be_trained() -> None:
    per_rank = (64 + 128) + 2 * (64 + 64) + (128 + 64) + 3 * (64 + 100)
    assert estimate(MODEL, CONFIG, 5, n_adapters=3).adapter_bytes == 2 * per_rank * 8 * 3 * 2
    served_only = MODEL.model_copy(update={"trainable": False})
    assert estimate(served_only, CONFIG, 5, n_adapters=3).adapter_bytes == 0


def test_without_files_the_parameters_are_counted() -> None:
    assert estimate(MODEL, None, None, n_adapters=1) == Need(2_000_000_000)


def test_what_does_not_fit_is_refused_with_the_figures() -> None:
    need, gpu = Need(20 * GIB, 3 * GIB, GIB), GpuChoice.parse("A100")
    check_fits(MODEL, gpu, need, room_bytes=24 * GIB)
    with pytest.raises(DoesNotFit) as refused:
        check_fits(MODEL, gpu, need, room_bytes=23.5 * GIB)
    error = refused.value
    assert (error.status_code, error.param) == (400, "model")
    assert error.message.startswith("test/a does not fit A100: it needs 20.0 GiB for its weights, 3.0 GiB")
    assert error.troubleshooting == {
        "weights_gib": 20.0,
        "cache_gib": 3.0,
        "adapters_gib": 1.0,
        "available_gib": 23.5,
    }


def test_the_size_of_weights_is_told_by_the_index_or_counted(tmp_path: Path) -> None:
    assert (size_of(str(tmp_path)), read_config(str(tmp_path))) == (None, None)
    assert size_of("Qwen/Qwen3-0.6B") is None
    for name in ("model-1.safetensors", "model-2.safetensors"):
        (tmp_path / name).write_bytes(b"x" * 10)
    assert size_of(str(tmp_path)) == 20
    (tmp_path / "model.safetensors.index.json").write_bytes(orjson.dumps({"metadata": {"total_size": 33}}))
    assert size_of(str(tmp_path)) == 33
    (tmp_path / "config.json").write_text("[broken")
    assert read_config(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("gpu", "memory_gib", "fits"),
    [
        ("A100", 8, False),  # 0.9 of it are less than the weights
        ("A100", 9, True),
        ("A100:2", 5, True),
        ("CPU", 8, False),  # beside the weights comes a cache of a set size
        ("CPU", 9, True),
        ("A100", 0, True),  # unknown
    ],
)
def test_a_model_is_held_against_the_memory_of_its_devices(
    tmp_path: Path, gpu: str, memory_gib: int, fits: bool
) -> None:
    model = MODEL.model_copy(update={"parameters_billions": 7.6 * GIB / 1e9 / 2})
    choice = GpuChoice.parse(gpu)
    devices = [replace(device, memory_bytes=memory_gib * GIB) for device in declared([gpu])]
    with nullcontext() if fits else pytest.raises(DoesNotFit):
        check_memory(Settings(data_dir=tmp_path), model, choice, devices)


def test_every_model_of_the_catalog_fits_each_gpu_it_names() -> None:
    catalog = load_catalog(ROOT / "models.yaml")
    for model in catalog.models:
        need = estimate(model, read_config(model.weights), size_of(model.weights), n_adapters=4)
        for gpu in model.choices:
            if gpu.type != "CPU":
                room = catalog.gpus[gpu.type].memory_gib * GIB * 0.9 * gpu.count
                check_fits(model, gpu, need, room_bytes=room)
