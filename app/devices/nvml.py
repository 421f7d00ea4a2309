"""What NVIDIA's driver says of this host's GPUs."""

from dataclasses import dataclass

import pynvml


@dataclass(frozen=True)
class Gpu:
    """`index` counts in the order of the PCI bus. Memory is 0 where a GPU shares the host's and does not tell."""

    index: int
    uuid: str
    product: str
    total_bytes: int
    free_bytes: int


def list_gpus() -> list[Gpu]:
    """Empty where there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_read(index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def _read(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    uuid, product = pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle)
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError:
        return Gpu(index, uuid, product, 0, 0)
    return Gpu(index, uuid, product, memory.total, memory.free)
