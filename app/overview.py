"""Tables for the terminal: this host's accelerators and who holds them, what engines run, what was used."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from rich.table import Column, Table

from app.billing.usage import Figures, Group, UsageRow
from app.devices.inventory import Device
from app.store.tables import EngineStatus

MIB, GIB = 1 << 20, 1 << 30


def gpus_table(devices: Sequence[Device], holders: Mapping[str, str], free_bytes: Mapping[str, int]) -> Table:
    """`holders` and `free_bytes` by the device's name; a line for each type and use."""
    table = Table("type", "for", *_numbers("count", "free", "memory", "free memory"), "held by")
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
            ", ".join(held_by) or "-",
        )
    return table


def engines_table(statuses: Sequence[EngineStatus]) -> Table:
    numbers = _numbers("since", "requests", "tokens/s", "memory", "adapters")
    table = Table("host", "model", "gpu", "state", *numbers)
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


FIGURES: dict[str, Callable[[Figures], str]] = {
    "requests": lambda of: f"{of.n_entries:,}",
    "prompt": lambda of: f"{of.prompt_tokens:,}",
    "cached": lambda of: f"{of.cached_tokens:,}",
    "completion": lambda of: f"{of.completion_tokens:,}",
    "reasoning": lambda of: f"{of.reasoning_tokens:,}",
    "trained": lambda of: f"{of.trained_tokens:,}",
    "GPU h": lambda of: f"{of.gpu_seconds / 3600:,.2f}",
    "cost": lambda of: f"${of.cost_micros / 1e6:,.4f}",
}


def usage_table(groups: Sequence[Group], rows: Sequence[UsageRow]) -> Table:
    """A line for each bucket and each of the groups, and the sums; figures that are nought throughout are left out."""
    total = sum((row.figures for row in rows), Figures())
    shown = [name for name, tell in FIGURES.items() if name == "cost" or tell(total) != tell(Figures())]
    numbers = [Column(name, FIGURES[name](total), justify="right") for name in shown]
    table = Table(Column("from (UTC)", "total"), *groups, *numbers, show_footer=True)
    for row in rows:
        began = datetime.fromtimestamp(row.start_at, UTC).strftime("%Y-%m-%d %H:%M")
        table.add_row(began, *(word or "-" for word in row.groups), *(FIGURES[name](row.figures) for name in shown))
    return table


def _numbers(*names: str) -> list[Column]:
    return [Column(name, justify="right") for name in names]


def _gib(n_bytes: int) -> str:
    if n_bytes < GIB // 10:
        return f"{n_bytes / MIB:.0f} MiB" if n_bytes else "-"
    return f"{n_bytes / GIB:.1f} GiB"


def duration(seconds: float) -> str:
    """`95` -> `1m 35s`"""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {rest}s" if minutes else f"{rest}s"
