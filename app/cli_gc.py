"""`loam gc`: what nobody needs any more, shown or removed."""

from collections.abc import Sequence

from rich.filesize import decimal
from rich.table import Column, Table

from app.files.storage import Storage
from app.settings import Settings
from app.store.session import Store
from app.sweeps import all_sweeps
from app.terminal import on_store
from app.upkeep.sweeping import Swept, sweep_all


def collect_garbage(settings: Settings, *, dry: bool) -> list[Swept]:
    async def sweep(store: Store) -> list[Swept]:
        return await sweep_all(all_sweeps(settings, store, Storage(settings.data_dir)), dry=dry)

    return on_store(settings, sweep)


def swept_table(swept: Sequence[Swept]) -> Table:
    table = Table("what", Column("how many", justify="right"), Column("bytes", justify="right"))
    for each in swept:
        table.add_row(each.what, f"{each.count:,}", "-" if each.size_bytes is None else decimal(each.size_bytes))
    return table
