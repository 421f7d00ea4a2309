"""Whether a model fits the devices it is to run on, by what this disk knows of it; before it is tried."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from app.catalog.spec import GpuChoice, ModelSpec
from app.devices.inventory import Device
from app.engines.memory import GIB, check_fits, estimate
from app.settings import Settings


def check_memory(settings: Settings, model: ModelSpec, gpu: GpuChoice, devices: Sequence[Device]) -> None:
    """Reads small files. Raises DoesNotFit; devices that do not tell their memory are believed to have enough."""
    memory = min((device.memory_bytes for device in devices if device.type == gpu.type), default=0)
    if not memory:
        return
    n_adapters = settings.max_loras
    on_cpu = gpu.type == "CPU"
    if on_cpu:  # there, the slots of adapters that are not in use are in the same memory
        n_adapters += max(settings.max_loras, settings.max_cpu_loras)
    need = estimate(model, read_config(model.weights), size_of(model.weights), n_adapters=n_adapters)
    if on_cpu:  # a context is cut to the cache there
        check_fits(model, gpu, replace(need, cache_bytes=settings.cpu_kv_cache_gib * GIB), room_bytes=memory)
    else:
        check_fits(model, gpu, need, room_bytes=memory * gpu.count * settings.gpu_memory_utilization)


def read_config(weights: str) -> dict[str, Any] | None:
    """The model's own `config.json`; None for weights that are not a local folder, or do not say."""
    return _read_json(Path(weights) / "config.json")


def size_of(weights: str) -> int | None:
    """Bytes, told by the index or counted; None where no weights are on this disk."""
    folder = Path(weights)
    index = _read_json(folder / "model.safetensors.index.json") or {}
    told = (index.get("metadata") or {}).get("total_size")
    return int(told) if told else sum(path.stat().st_size for path in folder.glob("*.safetensors")) or None


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return content if isinstance(content, dict) else None
