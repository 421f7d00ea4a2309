"""What accelerators this host has."""

import os
import re
import socket
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import pynvml

from app.catalog.spec import GPU_PATTERN, Catalog, GpuChoice
from app.settings import Settings


class WrongDevices(Exception):
    """The settings declare a device that cannot be; the message names it and says what can."""


@dataclass(frozen=True)
class Device:
    """One accelerator, or one slot of the CPU. `index` is CUDA's."""

    host: str
    type: str
    index: int

    @property
    def name(self) -> str:
        return f"{self.host}/{self.type}/{self.index}"


def find_devices(settings: Settings, catalog: Catalog) -> list[Device]:
    """Declared by the settings, or every catalog type when simulating, or asked from NVML, or else CPU slots.

    Raises WrongDevices.
    """
    if settings.devices is not None:
        _check_declared(settings.devices, catalog.gpus)
        return declared(settings.devices)
    if settings.simulate:
        return declared([f"{type_}:8" for type_ in catalog.gpus])
    return cuda_devices(list(catalog.gpus)) or declared([f"CPU:{settings.cpu_slots}"])


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


def cuda_devices(types: Sequence[str]) -> list[Device]:
    """Empty where there is no NVIDIA driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        names = [
            pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(index))
            for index in range(pynvml.nvmlDeviceGetCount())
        ]
    finally:
        pynvml.nvmlShutdown()
    host = socket.gethostname()
    return [Device(host, type_of(name, types), index) for index, name in enumerate(names)]


def type_of(product: str, types: Sequence[str]) -> str:
    """`NVIDIA A100-SXM4-80GB` -> `A100`; a product the catalog does not know keeps a name of its own."""
    words = re.split(r"[^A-Z0-9]+", product.upper())
    return next((type_ for type_ in types if type_ in words), "".join(words).removeprefix("NVIDIA"))


def as_choices(devices: Sequence[Device]) -> list[GpuChoice]:
    """How many of each type, in the order they were found."""
    return [GpuChoice(type=type_, count=count) for type_, count in Counter(d.type for d in devices).items()]
