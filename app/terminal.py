"""What the commands of `loam` share: their options, where and how they print, and a transaction on the store."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncSession

from app.narrow_table import folded
from app.settings import Settings
from app.store.migrate import migrate
from app.store.session import Store

out, err = Console(soft_wrap=True, highlight=False), Console(stderr=True, soft_wrap=True, highlight=False)

WIDE = 10_000

Result = TypeVar("Result")
OrgName = Annotated[str, typer.Option("--org", help="Name or id of the organisation.")]
DataDir = Annotated[Path | None, typer.Option(help="Where everything is kept [LOAM_DATA_DIR, .loam].")]


def read_settings(**given: Any) -> Settings:
    """From the environment, with what was given on the command line above it."""
    return Settings(**{name: value for name, value in given.items() if value is not None})


def show(table: Table) -> None:
    """Where it is wider than the terminal, each row over several lines."""
    needed = out.measure(table, options=out.options.update(max_width=WIDE)).maximum
    if needed <= out.width:
        out.print(table)
        return
    for line in folded(table, out.width):
        out.print(line, markup=False)


def in_store(settings: Settings, work: Callable[[AsyncSession], Awaitable[Result]]) -> Result:
    """One transaction on the configured store, which is made if it is not there yet."""

    async def run(store: Store) -> Result:
        async with store.begin() as session:
            return await work(session)

    return on_store(settings, run)


def look_in_store(settings: Settings, look: Callable[[AsyncSession], Awaitable[Result]]) -> Result:
    """The same for what only looks: nobody waits for it, nor it for anybody."""

    async def run(store: Store) -> Result:
        async with store.read() as session:
            return await look(session)

    return on_store(settings, run)


def on_store(settings: Settings, work: Callable[[Store], Awaitable[Result]]) -> Result:
    """The same for what takes more than one transaction."""

    async def run() -> Result:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        store = Store(settings.store_url)
        try:
            await migrate(store)
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())
