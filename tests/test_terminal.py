"""What the commands of `loam` share: tables that a terminal has room for, and looking without writing."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.table import Column, Table

from app.billing.ledger import Entry, append
from app.ids import new_id
from app.narrow_table import folded
from app.orgs.service import create_org
from app.settings import Settings
from app.store.migrate import migrate
from app.store.session import Store
from tests.command import loam
from tests.rows import make_key

MODEL = "ft:Qwen/Qwen3-0.6B:support:ftjob-01m8kmmwck49xjbymje05sqt37"
KEY_ID = "key_01m8kmmwck49xjbymje05sqt37"

LOOKING = [
    "usage --org acme",
    "usage --org acme --by key,model,kind",
    "credit show --org acme",
    "keys list --org acme",
    "orgs list",
    "orgs show acme",
    "jobs list",
    "jobs workers",
    "engines",
    "gpus",
    "audit",
    "ledger verify",
    "gc --dry-run",
]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a server with one organisation, which has used each kind of thing."""
    folder = tmp_path_factory.mktemp("acme")
    asyncio.run(fill(Store(Settings(data_dir=folder).store_url)))
    return folder


async def fill(store: Store) -> None:
    await migrate(store)
    async with store.begin() as session:
        org = await create_org(session, "acme")
        await make_key(session, org, id=KEY_ID)
        tokens = {"prompt_tokens": 1_234_567, "cached_tokens": 234_567, "completion_tokens": 345_678}
        used = {"kind": "inference", "key_id": KEY_ID, "model": MODEL, **tokens, "reasoning_tokens": 45_678}
        trained = {"kind": "training", "model": MODEL, "trained_tokens": 9_876_543, "gpu_seconds": 54_321.0}
        for fields in ({"kind": "credit", "amount_micros": 10**9}, used, trained):
            entry: dict[str, Any] = {"org_id": org.id, "source": new_id("test"), "amount_micros": -123_456, **fields}
            await append(session, Entry(**entry))
    await store.close()


def test_what_is_too_wide_has_whole_columns_below_each_other_on_several_lines() -> None:
    numbers = (Column("tokens", "1,030", justify="right"), Column("cost", "$30", justify="right"))
    table = Table(Column("id", "total"), "name", "state", *numbers, show_footer=True)
    table.add_row("key_1", "café", "active", "30", "$5")
    table.add_row("key_22", "b", "revoked", "1,000", "$25")
    assert list(folded(table, 20)) == [
        "id      name",
        "  state",
        "  tokens  cost",
        "key_1   café",
        "  active",
        "      30    $5",
        "key_22  b",
        "  revoked",
        "   1,000   $25",
        "total",
        "   1,030   $30",
    ]


@pytest.mark.parametrize("line", LOOKING)
def test_eighty_columns_are_enough_and_no_id_is_cut(data_dir: Path, line: str) -> None:
    told = loam({"LOAM_DATA_DIR": str(data_dir)}, *line.split())
    assert told.returncode == 0, told.stderr
    assert [text for text in told.stdout.splitlines() if len(text) > 80] == []
    if "key" in line:
        assert KEY_ID in told.stdout
    if "model" in line:
        assert MODEL in told.stdout
        assert "1,234,567" in told.stdout


def test_who_only_looks_waits_for_nobody_who_writes(data_dir: Path) -> None:
    with closing(sqlite3.connect(data_dir / "loam.db", isolation_level=None)) as writing:
        writing.execute("BEGIN IMMEDIATE")
        for line in LOOKING:
            told = loam({"LOAM_DATA_DIR": str(data_dir)}, *line.split())
            assert told.returncode == 0, f"{line}: {told.stderr}"
