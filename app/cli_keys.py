"""`loam keys`: API keys, for whoever runs the server."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncSession

from app.admin import keys as acts
from app.admin.schemas import status_of
from app.catalog.load import load_catalog
from app.cli_limits import NONE, AtOnce, Budget, Requests, Tokens, day, limits_of, moment_of, told
from app.orgs import service
from app.orgs.audit import Actor
from app.orgs.roles import Role
from app.store.tables import ApiKey
from app.terminal import DataDir, OrgName, in_store, look_in_store, out, read_settings, show

keys = typer.Typer(no_args_is_help=True, help="API keys.")

KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="Its id, key_…")]
RoleOption = Annotated[
    Role | None,
    typer.Option(help="server runs all organisations, admin its own; member works, inference asks models, read looks."),
]
Models = Annotated[
    str | None, typer.Option(metavar="MODEL,…|none", help="The only models that it may use; none is all.")
]
Expires = Annotated[
    str | None, typer.Option(metavar="WHEN|none", help="When it ends: 2027-01-31, or in 12h, 30d, 8w; none is never.")
]


@keys.command("create")
def create_key(
    org: OrgName,
    name: str = "cli",
    role: RoleOption = None,
    models: Models = None,
    expires: Expires = None,
    requests: Requests = None,
    tokens: Tokens = None,
    at_once: AtOnce = None,
    budget: Budget = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key, for a member unless told otherwise; prints the key and nothing else. It is never shown again."""
    settings = read_settings(data_dir=data_dir)
    catalog = load_catalog(settings.catalog)
    values = {"name": name, **_terms(role, models, expires), **limits_of(requests, tokens, at_once, budget)}

    async def create(session: AsyncSession) -> None:
        row = await service.get_org(session, org)
        typer.echo((await acts.create_key(session, Actor.at_terminal(), catalog, row, values))[1])

    in_store(settings, create)


@keys.command("list")
def list_keys(org: OrgName, data_dir: DataDir = None) -> None:
    """An organisation's keys, by what they begin with."""

    async def look(session: AsyncSession) -> None:
        show(_table(await service.list_keys(session, await service.get_org(session, org))))

    look_in_store(read_settings(data_dir=data_dir), look)


@keys.command("update")
def update_key(
    key_id: KeyId,
    name: Annotated[str | None, typer.Option(help="What it shall be called from now on.")] = None,
    role: RoleOption = None,
    models: Models = None,
    expires: Expires = None,
    requests: Requests = None,
    tokens: Tokens = None,
    at_once: AtOnce = None,
    budget: Budget = None,
    data_dir: DataDir = None,
) -> None:
    """Change what a key may do, on every gateway within a second; what is not given stays as it is."""
    settings = read_settings(data_dir=data_dir)
    catalog = load_catalog(settings.catalog)
    values = {**_terms(role, models, expires), **limits_of(requests, tokens, at_once, budget)}
    values |= {} if name is None else {"name": name}

    async def update(session: AsyncSession) -> None:
        await acts.update_key(session, Actor.at_terminal(), catalog, await service.get_key(session, key_id), values)
        out.print(f"Updated {key_id}.", markup=False)

    in_store(settings, update)


@keys.command("rotate")
def rotate_key(key_id: KeyId, data_dir: DataDir = None) -> None:
    """Another key in the place of this one, which is refused at once; prints the new one and nothing else."""

    async def rotate(session: AsyncSession) -> None:
        typer.echo(await acts.rotate_key(session, Actor.at_terminal(), await service.get_key(session, key_id)))

    in_store(read_settings(data_dir=data_dir), rotate)


@keys.command("revoke")
def revoke_key(key_id: KeyId, data_dir: DataDir = None) -> None:
    """Make a key invalid for good; every gateway refuses it within a second."""

    async def revoke(session: AsyncSession) -> None:
        await acts.revoke_key(session, Actor.at_terminal(), await service.get_key(session, key_id))
        out.print(f"Revoked {key_id}.", markup=False)

    in_store(read_settings(data_dir=data_dir), revoke)


def _terms(role: Role | None, models: str | None, expires: str | None) -> dict[str, Any]:
    """By the names of the table's columns; what was not given is left out."""
    given: dict[str, Any] = {} if role is None else {"role": role}
    if models is not None:
        given["models"] = None if models.lower() == NONE else [name.strip() for name in models.split(",")]
    if expires is not None:
        given["expires_at"] = None if expires.lower() == NONE else moment_of(expires, "--expires")
    return given


def _table(rows: Sequence[ApiKey]) -> Table:
    table = Table("begins with", "id", "name", "role", "state", "last used", "held to")
    for key in rows:
        facts = (key.prefix, key.id, key.name, key.role, status_of(key), day(key.last_used_at))
        table.add_row(*facts, ", ".join(_held_to(key)) or "-")
    return table


def _held_to(key: ApiKey) -> list[str]:
    models = [] if key.models is None else key.models or ["no model"]
    until = [] if key.expires_at is None else [f"until {day(key.expires_at)}"]
    return [*models, *until, *told(key)]
