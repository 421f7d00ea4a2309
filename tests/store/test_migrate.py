"""The migrations build the tables that the code declares, and take them down again."""

import asyncio
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from app.settings import ROOT
from app.store import tables  # noqa: F401 - fills the metadata
from app.store.base import Base
from app.store.migrate import migrate
from app.store.session import Store

pytestmark = pytest.mark.anyio


def migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    return config


def differences(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), Base.metadata))


def table_names(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names()) - {"alembic_version"}


def take_down(connection: Connection) -> None:
    config = migrations()
    config.attributes["connection"] = connection
    command.downgrade(config, "base")


async def test_the_migrated_schema_is_the_declared_one(store: Store) -> None:
    async with store.engine.begin() as connection:
        assert await connection.run_sync(differences) == []


async def test_migrations_go_down_to_nothing_and_up_again(store: Store) -> None:
    async with store.engine.begin() as connection:
        await connection.run_sync(take_down)
    async with store.engine.begin() as connection:
        assert await connection.run_sync(table_names) == set()
    await migrate(store)
    async with store.engine.begin() as connection:
        assert await connection.run_sync(table_names) == set(Base.metadata.tables)
        assert await connection.run_sync(differences) == []


def test_there_is_one_newest_migration() -> None:
    assert len(ScriptDirectory.from_config(migrations()).get_heads()) == 1


async def test_migrating_a_current_store_changes_nothing(store: Store) -> None:
    await migrate(store)
    async with store.engine.begin() as connection:
        assert await connection.run_sync(differences) == []


async def test_processes_that_start_together_migrate_one_after_the_other(store_url: str) -> None:
    first = Store(store_url)
    async with first.engine.begin() as connection:
        await connection.run_sync(take_down)
    await first.close()
    await migrate_at_once(store_url)


async def test_a_new_sqlite_file_can_be_made_by_many_at_once(tmp_path: Path) -> None:
    await migrate_at_once(f"sqlite+aiosqlite:///{tmp_path / 'new.db'}")


async def migrate_at_once(url: str) -> None:
    stores = [Store(url) for _ in range(6)]
    await asyncio.gather(*(migrate(store) for store in stores))
    async with stores[0].engine.begin() as connection:
        assert await connection.run_sync(differences) == []
    for store in stores:
        await store.close()
