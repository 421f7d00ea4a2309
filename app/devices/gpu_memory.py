"""GPU memory after a process has ended: the driver needs a moment to take it back."""

import asyncio
import time
from collections.abc import Callable, Sequence

import pynvml
import structlog

from app.devices.inventory import Device

log = structlog.get_logger()

WITHIN_SECONDS = 15.0
POLL_SECONDS = 0.2

FreeShares = Callable[[Sequence[int]], list[float]]


def free_shares(indices: Sequence[int]) -> list[float]:
    """How much of each GPU's memory is free, 0 to 1; nothing where NVML cannot tell."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        memory = [pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(index)) for index in indices]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()
    return [each.free / each.total for each in memory]


async def until_free(
    devices: Sequence[Device],
    share: float,
    *,
    look: FreeShares = free_shares,
    within_seconds: float = WITHIN_SECONDS,
) -> bool:
    """Wait until `share` of each device is free, or time is up: another program may hold it, and a start will tell."""
    indices = [device.index for device in devices if device.type != "CPU"]
    deadline = time.monotonic() + within_seconds
    while indices:
        shares = await asyncio.to_thread(look, indices)
        if all(free >= share for free in shares):
            break
        if time.monotonic() > deadline:
            log.warning("GPU memory is still taken", free=[round(free, 2) for free in shares], wanted=share)
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True
