"""`loam audit`: who did what to organisations, keys, credit and jobs."""

from typing import Annotated

import orjson
import typer
from rich.table import Column, Table
from sqlalchemy.ext.asyncio import AsyncSession

from app.cli_limits import day, moment_of
from app.orgs.audit import AuditFilter
from app.orgs.service import get_org
from app.store.tables import AuditEntry, Org
from app.terminal import DataDir, look_in_store, read_settings, show

Since = Annotated[str | None, typer.Option(metavar="WHEN", help="From 2026-11-30 on, or of the last 12h, 30d, 8w.")]
Until = Annotated[str | None, typer.Option(metavar="WHEN", help="Before then.")]


def show_audit(
    org: Annotated[str | None, typer.Option(help="Only of this organisation; its name or id.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only by this key (its id) or this user on a terminal.")] = None,
    action: Annotated[str | None, typer.Option(help="Only these, as api_key.revoked.")] = None,
    target: Annotated[str | None, typer.Option(help="Only to this; its id.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest so many.")] = 50,
    data_dir: DataDir = None,
) -> None:
    """Who did what to organisations, keys, credit and jobs, when and from where; the newest last."""
    since_at, until_at = (
        None if when is None else moment_of(when, option, direction=-1)
        for option, when in (("--since", since), ("--until", until))
    )

    async def look(session: AsyncSession) -> None:
        wanted = AuditFilter(
            org_id=await _org_id(session, org) if org else None,
            actor=actor,
            action=action,
            target=target,
            since=since_at,
            until=until_at,
        )
        rows = await session.scalars(wanted.rows().order_by(AuditEntry.id.desc()).limit(limit))
        table = Table("when", "who", "from", "what", Column("to", overflow="fold"), Column("how", overflow="fold"))
        for row in reversed(rows.all()):
            how = orjson.dumps(row.details).decode()
            table.add_row(day(row.created_at), row.actor, row.address or "-", row.action, row.target, how)
        show(table)

    look_in_store(read_settings(data_dir=data_dir), look)


async def _org_id(session: AsyncSession, name: str) -> str:
    """Of one that was deleted only by its id."""
    return (await session.get(Org, name) or await get_org(session, name)).id
