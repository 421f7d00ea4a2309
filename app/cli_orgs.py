"""`loam orgs`: organisations, for whoever runs the server."""

from typing import Annotated, Any

import typer
from rich.table import Column, Table
from sqlalchemy.ext.asyncio import AsyncSession

from app.admin import organisations
from app.billing.ledger import balance_micros
from app.catalog.load import load_catalog
from app.cli_limits import (
    AtOnce,
    Budget,
    Bytes,
    Files,
    Jobs,
    Requests,
    Tokens,
    day,
    dollars,
    limits_of,
    quotas_of,
    told,
)
from app.orgs import service
from app.orgs.audit import Actor
from app.terminal import DataDir, in_store, look_in_store, out, read_settings, show

orgs = typer.Typer(no_args_is_help=True, help="Organisations.")

Name = Annotated[str, typer.Argument(metavar="ORG", help="Its name or id.")]


@orgs.command("create")
def create_org(
    name: Annotated[str, typer.Argument(help="What it shall be called.")],
    requests: Requests = None,
    tokens: Tokens = None,
    at_once: AtOnce = None,
    budget: Budget = None,
    files: Files = None,
    n_bytes: Bytes = None,
    jobs: Jobs = None,
    data_dir: DataDir = None,
) -> None:
    """Make an organisation, with the welcome credit. Its limits are for all its keys together."""
    settings = read_settings(data_dir=data_dir)
    limits = limits_of(requests, tokens, at_once, budget) | quotas_of(files, n_bytes, jobs)

    async def create(session: AsyncSession) -> None:
        org = await organisations.create_org(session, Actor.at_terminal(), settings, name, limits)
        out.print(f"Created {org.name} ({org.id}). Next: loam keys create --org {org.name}", markup=False)

    in_store(settings, create)


@orgs.command("list")
def list_orgs(data_dir: DataDir = None) -> None:
    """All organisations, with their balances."""

    async def look(session: AsyncSession) -> None:
        table = Table("name", "id", Column("balance", justify="right"), "limits")
        for org in await service.list_orgs(session):
            balance = dollars(await balance_micros(session, org.id))
            table.add_row(org.name, org.id, balance, ", ".join(told(org)) or "-")
        show(table)

    look_in_store(read_settings(data_dir=data_dir), look)


@orgs.command("show")
def show_org(name: Name, data_dir: DataDir = None) -> None:
    """An organisation, its limits and its balance."""

    async def look(session: AsyncSession) -> None:
        org = await service.get_org(session, name)
        live = [key for key in await service.list_keys(session, org) if key.revoked_at is None]
        balance = dollars(await balance_micros(session, org.id))
        facts = {"name": org.name, "id": org.id, "made": day(org.created_at), "balance": balance}
        facts |= {"keys": str(len(live)), "limits": ", ".join(told(org)) or "-"}
        table = Table(show_header=False)
        for what, fact in facts.items():
            table.add_row(what, fact)
        out.print(table)

    look_in_store(read_settings(data_dir=data_dir), look)


@orgs.command("update")
def update_org(
    org: Name,
    name: Annotated[str | None, typer.Option(help="What it shall be called from now on.")] = None,
    requests: Requests = None,
    tokens: Tokens = None,
    at_once: AtOnce = None,
    budget: Budget = None,
    files: Files = None,
    n_bytes: Bytes = None,
    jobs: Jobs = None,
    data_dir: DataDir = None,
) -> None:
    """Change its name or limits; what is not given stays as it is."""
    values: dict[str, Any] = limits_of(requests, tokens, at_once, budget) | quotas_of(files, n_bytes, jobs)
    values |= {} if name is None else {"name": name}

    async def update(session: AsyncSession) -> None:
        row = await service.get_org(session, org)
        await organisations.update_org(session, Actor.at_terminal(), row, values)
        out.print(f"Updated {row.name}.", markup=False)

    in_store(read_settings(data_dir=data_dir), update)


@orgs.command("delete")
def delete_org(
    org: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Its keys are refused at once, its jobs cancelled, its files and models removed later; its ledger stays."""
    settings = read_settings(data_dir=data_dir)
    catalog = load_catalog(settings.catalog)
    if not yes:
        typer.confirm(f"Delete {org} for good?", abort=True)

    async def delete(session: AsyncSession) -> None:
        row = await service.get_org(session, org)
        await organisations.delete_org(session, Actor.at_terminal(), catalog, row)
        out.print(f"Deleted {row.name} ({row.id}).", markup=False)

    in_store(settings, delete)
