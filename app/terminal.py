"""What the commands of `loam` share: their options, where they print, and a transaction on the store."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from sqlalchemy.ext.asyncio import AsyncSession

from app.settings import Settings
from app.store.migrate import migrate
from app.store.session import Store

out, err = Console(soft_wrap=True, highlight=False), Console(stderr=True, soft_wrap=True, highlight=False)

Result = TypeVar("Result")
OrgName = Annotated[str, typer.Option("--org", help="Name or id of the organisation.")]
DataDir = Annotated[Path | None, typer.Option(help="Where everything is kept [LOAM_DATA_DIR, .loam].")]


def read_settings(**given: Any) -> Settings:
    """From the environment, with what was given on the command line above it."""
    return Settings(**{name: value for name, value in given.items() if value is not None})


def in_store(settings: Settings, work: Callable[[AsyncSession], Awaitable[Result]]) -> Result:
    """One transaction on the configured store, which is made if it is not there yet."""

    async def run(store: Store) -> Result:
        async with store.begin() as session:
            return await work(session)

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
