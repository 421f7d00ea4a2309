"""What accelerators this host has."""

import os
import re
import socket
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import count

import psutil

from app.catalog.spec import GPU_PATTERN, Catalog, GpuChoice
from app.devices import nvml
from app.errors import Foreseen
from app.settings import Settings


class WrongDevices(Foreseen):
    """The settings declare a device that cannot be; the message names it and says what can."""


class Use(StrEnum):
    """What a device is for."""

    BOTH = "both"
    ENGINES = "engines"
    TRAINING = "training"


@dataclass(frozen=True)
class Device:
    """One accelerator, or one slot of the CPU. `index` is CUDA's, in the order of the PCI bus.

    `memory_bytes` is 0 where it is not known; all slots of the CPU have the same.
    """

    host: str
    type: str
    index: int
    memory_bytes: int = 0
    use: Use = Use.BOTH

    @property
    def name(self) -> str:
        return f"{self.host}/{self.type}/{self.index}"


def find_devices(settings: Settings, catalog: Catalog) -> list[Device]:
    """Declared by the settings, or every catalog type when simulating, or asked from NVML, or else CPU slots;
    without those that the settings hide, and with what they reserve each for.

    Raises WrongDevices.
    """
    return assigned(_with_memory(_find(settings, catalog), catalog), settings)


def for_engines(devices: Sequence[Device]) -> list[Device]:
    return [device for device in devices if device.use is not Use.TRAINING]


def for_training(devices: Sequence[Device]) -> list[Device]:
    """Those that engines do not use first, so that no engine has to give way without need."""
    return sorted((d for d in devices if d.use is not Use.ENGINES), key=lambda device: device.use is Use.BOTH)


def assigned(devices: Sequence[Device], settings: Settings) -> list[Device]:
    """By number: that of the accelerator or, where there is none, of the CPU slot. Raises WrongDevices."""
    has_accelerators = any(device.type != "CPU" for device in devices)
    numbered = {device.index: device for device in devices if (device.type != "CPU") == has_accelerators}
    uses: dict[str, Use | None] = {}
    for name, use in (("hidden", None), ("for_engines", Use.ENGINES), ("for_training", Use.TRAINING)):
        for number in getattr(settings, f"devices_{name}"):
            device = numbered.get(number)
            if device is None or device.name in uses:
                reason = "is named twice" if device else f"is none of {', '.join(map(str, sorted(numbered)))}"
                raise WrongDevices(f"LOAM_DEVICES_{name.upper()}: {number} {reason}.")
            uses[device.name] = use
    return [replace(d, use=use) for d in devices if (use := uses.get(d.name, Use.BOTH)) is not None]


def _find(settings: Settings, catalog: Catalog) -> list[Device]:
    if settings.devices is not None:
        _check_declared(settings.devices, catalog.gpus)
        return declared(settings.devices)
    if settings.simulate:
        return declared([f"{type_}:8" for type_ in catalog.gpus])
    found = cuda_devices(list(catalog.gpus), settings.cuda_visible_devices)
    return found or declared([f"CPU:{settings.cpu_slots}"])


def _with_memory(devices: Sequence[Device], catalog: Catalog) -> list[Device]:
    """What NVML told, or else what the catalog says of the type; of the CPU, the host's."""
    of_type = {type_: int(gpu.memory_gib * (1 << 30)) for type_, gpu in catalog.gpus.items()}
    of_type["CPU"] = psutil.virtual_memory().total
    return [replace(d, memory_bytes=d.memory_bytes or of_type.get(d.type, 0)) for d in devices]


def cpu_threads() -> int:
    """Threads for an engine or a recipe on the CPU. One core is left to everything else: threads that wait for each
    other at every layer are slow when one of them has to queue.
    """
    return max(1, (os.cpu_count() or 2) - 1)


def declared(texts: Sequence[str]) -> list[Device]:
    """Accelerators are numbered through all types, as CUDA numbers them; CPU slots count for themselves."""
    host, numbers = socket.gethostname(), defaultdict[bool, Iterator[int]](count)
    choices = [GpuChoice.parse(text) for text in texts]
    return [
        Device(host, choice.type, next(numbers[choice.type == "CPU"]))
        for choice in choices
        for _ in range(choice.count)
    ]


def _check_declared(texts: Sequence[str], types: Collection[str]) -> None:
    for text in texts:
        if not re.fullmatch(GPU_PATTERN, text.upper()) or GpuChoice.parse(text).type not in types:
            known = ", ".join(types)
            raise WrongDevices(f"LOAM_DEVICES: {text[:50]!r} is not TYPE or TYPE:COUNT, TYPE being one of {known}.")


def cuda_devices(types: Sequence[str], visible: str | None) -> list[Device]:
    """Those that `visible`, CUDA's own setting, lets be seen. Empty where there is no NVIDIA driver."""
    host = socket.gethostname()
    return [
        Device(host, type_of(gpu.product, types), gpu.index, gpu.total_bytes)
        for gpu in nvml.list_gpus()
        if is_visible(gpu, visible)
    ]


def free_memory(devices: Sequence[Device]) -> dict[str, int]:
    """Bytes by the device's name, of this host's GPUs that tell it at this moment."""
    free = {gpu.index: gpu.free_bytes for gpu in nvml.list_gpus() if gpu.total_bytes}
    return {d.name: free[d.index] for d in devices if d.type != "CPU" and d.index in free}


def is_visible(gpu: nvml.Gpu, visible: str | None) -> bool:
    """`0,2` or `GPU-8932f937,…`: numbers, or how their identities begin."""
    if visible is None:
        return True
    named = [part.strip() for part in visible.split(",")]
    return any(part == str(gpu.index) or (part.startswith("GPU-") and gpu.uuid.startswith(part)) for part in named)


def type_of(product: str, types: Sequence[str]) -> str:
    """`NVIDIA A100-SXM4-80GB` -> `A100`; a product the catalog does not know keeps a name of its own."""
    words = re.split(r"[^A-Z0-9]+", product.upper())
    return next((type_ for type_ in types if type_ in words), "".join(words).removeprefix("NVIDIA"))


def as_choices(devices: Sequence[Device]) -> list[GpuChoice]:
    """How many of each type, in the order they were found."""
    return [GpuChoice(type_, count) for type_, count in Counter(d.type for d in devices).items()]
