"""`loam orgs`, `keys`, `credit` and `audit`, in this process: what they do, and what they say where they cannot."""

import asyncio
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.orgs.audit import Actor
from app.orgs.key_ring import KeyRing
from app.orgs.keys import CurrentKey
from app.settings import Settings
from app.store.session import Store
from app.terminal import out

WIDE = {"COLUMNS": "300"}


@pytest.fixture
def loam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Loam":
    monkeypatch.setattr(out, "width", 300)  # a worker of xdist begins with COLUMNS=80, and a console keeps it
    return Loam(tmp_path)


class Loam:
    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def __call__(self, line: str) -> str:
        result = CliRunner().invoke(app, line.split(), env={**WIDE, "LOAM_DATA_DIR": str(self.data_dir)})
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.output.strip()

    def who(self, key: str) -> CurrentKey | None:
        return asyncio.run(self._who(key))

    async def _who(self, key: str) -> CurrentKey | None:
        store = Store(Settings(data_dir=self.data_dir).store_url)
        try:
            return await KeyRing(store, cache_seconds=1).authenticate(key)
        finally:
            await store.close()


def test_the_life_of_a_key_and_of_its_organisation(loam: Loam) -> None:
    assert "Next: loam keys create --org acme" in loam("orgs create acme --tokens-per-minute 500")
    key = loam("keys create --org acme --role inference --models loam/demo --expires 30d --monthly-budget 12.50")
    who = loam.who(key)
    assert who
    assert (str(who.role), who.models) == ("inference", frozenset({"loam/demo"}))
    assert who.limits.monthly_budget_micros == 12_500_000
    assert who.org_limits.tokens_per_minute == 500
    shown = loam("keys list --org acme")
    [key_id] = re.findall(r"key_\w{26}", shown)
    assert re.search(r"inference +│ active +│ - +│ loam/demo, until .*, \$12\.50/month", shown), shown
    loam(f"keys update {key_id} --role admin --models none --expires none --requests-per-minute 9")
    who = loam.who(key)
    assert who
    assert (who.role, who.models, who.expires_at, who.limits.requests_per_minute) == ("admin", None, None, 9)
    rotated = loam(f"keys rotate {key_id}")
    assert loam.who(key) is None
    assert loam.who(rotated) == who
    loam(f"keys revoke {key_id}")
    assert loam.who(rotated) is None
    loam("credit add --org acme 2.5")
    assert "acme has $99.00." in loam("credit add --org acme -3.5")
    assert "acme has $99.00." in loam("credit show --org acme")
    assert loam("ledger verify") == "The ledger adds up."
    loam("orgs update acme --requests-at-once 7 --stored-files 40 --queued-jobs 2")
    assert re.search(r"7 requests at once, 40 files, 2 queued jobs", loam("orgs show acme"))
    loam("orgs update acme --requests-at-once none --stored-files none --queued-jobs none")
    assert "Updated acme2." in loam("orgs update acme --name acme2 --tokens-per-minute none")
    assert re.search(r"limits +│ - ", loam("orgs show acme2"))
    assert "Deleted acme2" in loam("orgs delete acme2 --yes")
    assert "acme" not in loam("orgs list")

    told = loam("audit --since 1h")
    me = Actor.at_terminal().name
    acts = re.findall(rf"{me} +│ cli +│ (\S+)", told)
    assert acts == [
        "organization.created",
        *(f"api_key.{what}" for what in ("created", "updated", "rotated", "revoked")),
        *("credit.added", "credit.added", *["organization.updated"] * 3, "organization.deleted"),
    ]
    assert key[12:] not in told
    assert rotated[12:] not in told
    assert "api_key.rotated" not in loam("audit --action api_key.revoked")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("keys create --org acme --expires yesterday", "2027-01-31"),
        ("keys create --org acme --expires 2020-01-01", "would have expired"),
        ("keys create --org acme --models no/model", "no/model"),
        ("keys create --org acme --requests-per-minute many", "neither a number"),
        ("keys create --org acme --tokens-per-minute 0.5", "neither a number"),
        ("keys create --org acme --role god", "inference"),
        ("keys create --org nobody", "loam orgs create nobody"),
        ("keys rotate key_nobody", "loam keys list"),
        ("orgs create org_1", "printable"),
        ("credit add --org acme 0", "0"),
        ("audit --org nobody", "no organisation"),
    ],
)
def test_what_cannot_be_is_told_with_what_can(loam: Loam, line: str, told: str) -> None:
    loam("orgs create acme")
    try:
        output = loam(line)
    except Exception as error:  # noqa: BLE001 - whichever `main` tells
        output = str(error)
    assert told in output
