"""Tables for the terminal: what accelerators this host has and who holds them, and what engines run."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

from rich.table import Column, Table

from app.devices.inventory import Device
from app.store.tables import EngineStatus

GIB = 1 << 30


def gpus_table(devices: Sequence[Device], holders: Mapping[str, str], free_bytes: Mapping[str, int]) -> Table:
    """`holders` and `free_bytes` by the device's name; a line for each type and use."""
    table = Table("type", "for", "count", "free", "memory", "free memory", "held by")
    groups = defaultdict[tuple[str, str], list[Device]](list)
    for device in devices:
        groups[device.type, device.use].append(device)
    for (type_, use), group in groups.items():
        held_by = [f"{device.index}: {holders[device.name]}" for device in group if device.name in holders]
        known = [free_bytes[device.name] for device in group if device.name in free_bytes]
        table.add_row(
            type_,
            "engines and training" if use == "both" else use,
            str(len(group)),
            str(len(group) - len(held_by)),
            _gib(group[0].memory_bytes),
            ", ".join(_gib(n_bytes) for n_bytes in known) or "-",
            "\n".join(held_by) or "-",
        )
    return table


def engines_table(statuses: Sequence[EngineStatus]) -> Table:
    table = Table(
        "host", Column("model", overflow="fold"), "gpu", "state", "since", "requests", "tokens/s", "memory", "adapters"
    )
    for status in statuses:
        table.add_row(
            status.host,
            status.model,
            status.gpu,
            status.state,
            duration(time.time() - status.since),
            str(status.in_flight),
            f"{status.tokens_per_second:.1f}",
            _gib(status.memory_bytes),
            str(len(status.adapters)),
        )
    return table


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / GIB:.1f} GiB" if n_bytes else "-"


def duration(seconds: float) -> str:
    """`95` -> `1m 35s`"""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {rest}s" if minutes else f"{rest}s"
