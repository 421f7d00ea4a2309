"""The command `loam`."""

import os
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.ledger import Entry, append, balance_micros
from app.billing.usage import DAY_SECONDS, Asked, Bucket, groups_of, usage
from app.billing.verify import verify
from app.catalog.load import WrongCatalog, load_catalog
from app.catalog.spec import MICROS_PER_DOLLAR
from app.cli_export import CannotExport, Found, export, find
from app.cli_gc import collect_garbage, swept_table
from app.cli_jobs import jobs
from app.demo import run_demo
from app.devices import leases
from app.devices.inventory import WrongDevices, find_devices, free_memory
from app.engines.statuses import list_statuses
from app.errors import APIError
from app.files.new_folder import AlreadyThere
from app.files.storage import Storage
from app.ids import new_id
from app.orgs import service
from app.orgs.keys import create_key
from app.overview import engines_table, gpus_table, usage_table
from app.terminal import DataDir, err, in_store, out, read_settings
from app.up import CannotStart, run_up, welcome_credit

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, serve, meter: one server, your hardware.",
)
orgs = typer.Typer(no_args_is_help=True, help="Organisations.")
keys = typer.Typer(no_args_is_help=True, help="API keys.")
credit = typer.Typer(no_args_is_help=True, help="Credit.")
ledger = typer.Typer(no_args_is_help=True, help="The ledger.")
app.add_typer(orgs, name="orgs")
app.add_typer(keys, name="keys")
app.add_typer(credit, name="credit")
app.add_typer(ledger, name="ledger")
app.add_typer(jobs, name="jobs")

FORESEEN = (WrongCatalog, WrongDevices, CannotStart, CannotExport, AlreadyThere)

Port = Annotated[int | None, typer.Option(help="Port to listen on [LOAM_PORT, 8000].")]
Host = Annotated[str | None, typer.Option(help="Address to listen on [LOAM_HOST, 127.0.0.1].")]
Simulate = Annotated[bool | None, typer.Option("--simulate", help="Simulated engines and training: no GPU, no torch.")]
OrgName = Annotated[str, typer.Option("--org", help="Name or id of the organisation.")]


@app.command()
def up(data_dir: DataDir = None, host: Host = None, port: Port = None, simulate: Simulate = None) -> None:
    """Gateway and one worker in this terminal; Ctrl-C stops all of it."""
    settings = read_settings(data_dir=data_dir, host=host, port=port, simulate=simulate)
    if "gpu_fallback" not in settings.model_fields_set:
        settings.gpu_fallback = True  # whoever tries it out has some GPU or none, not the one that a client names
    raise typer.Exit(run_up(settings, with_worker=True))


@app.command()
def serve(data_dir: DataDir = None, host: Host = None, port: Port = None, simulate: Simulate = None) -> None:
    """The gateway alone: API and engine pool."""
    settings = read_settings(data_dir=data_dir, host=host, port=port, simulate=simulate)
    raise typer.Exit(run_up(settings, with_worker=False))


@app.command()
def worker(data_dir: DataDir = None, simulate: Simulate = None) -> None:
    """A worker alone: claims fine-tuning jobs and trains them."""
    settings = read_settings(data_dir=data_dir, simulate=simulate)
    os.environ.update(settings.as_environment())
    os.execv(sys.executable, [sys.executable, "-m", "workers.worker"])  # noqa: S606 - no shell is what we want


@app.command()
def demo(simulate: Simulate = None) -> None:
    """The whole main job on the demo model: train it, ask it, see what it cost."""
    raise typer.Exit(run_demo(read_settings(simulate=simulate), out))


@app.command()
def gpus(data_dir: DataDir = None, simulate: Simulate = None) -> None:
    """This host's accelerators, and who holds them."""
    settings = read_settings(data_dir=data_dir, simulate=simulate)
    devices = find_devices(settings, load_catalog(settings.catalog))

    async def show(session: AsyncSession) -> None:
        names = {status.id: status.model for status in await list_statuses(session)}
        holders = {device: names.get(holder, holder) for device, holder in (await leases.holders(session)).items()}
        out.print(gpus_table(devices, holders, free_memory(devices)))

    in_store(settings, show)


@app.command()
def engines(data_dir: DataDir = None) -> None:
    """What every gateway's engines do at this moment."""

    async def show(session: AsyncSession) -> None:
        out.print(engines_table(await list_statuses(session)))

    in_store(read_settings(data_dir=data_dir), show)


@app.command("export")
def export_model(
    name: Annotated[str, typer.Argument(help="A fine-tune, or one of its checkpoints: ft:….")],
    folder: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
    merged: Annotated[bool, typer.Option("--merged", help="Whole weights, the adapter merged into its base.")] = False,
    data_dir: DataDir = None,
) -> None:
    """A fine-tune as a folder that peft, transformers and vLLM load as it is."""
    settings = read_settings(data_dir=data_dir)
    catalog = load_catalog(settings.catalog)

    async def look(session: AsyncSession) -> Found:
        return await find(session, catalog, name)

    export(Storage(settings.data_dir), catalog, in_store(settings, look), folder, merged=merged)
    out.print(f"Exported {name} to {folder}.", markup=False)


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show it.")] = False, data_dir: DataDir = None
) -> None:
    """Remove what nobody needs any more, as every gateway does once an hour."""
    swept = collect_garbage(read_settings(data_dir=data_dir), dry=dry_run)
    out.print(swept_table(swept) if swept else "There is nothing to remove.")


@orgs.command("create")
def create_org(name: str, data_dir: DataDir = None) -> None:
    """Make an organisation, with the welcome credit."""
    settings = read_settings(data_dir=data_dir)

    async def create(session: AsyncSession) -> None:
        org = await service.create_org(session, name)
        await append(session, welcome_credit(settings, org.id))
        out.print(f"Created {org.name} ({org.id}). Next: loam keys create --org {org.name}", markup=False)

    in_store(settings, create)


@orgs.command("list")
def list_orgs(data_dir: DataDir = None) -> None:
    """All organisations, with their balances."""

    async def show(session: AsyncSession) -> None:
        table = Table("name", "id", "balance")
        for org in await service.list_orgs(session):
            table.add_row(org.name, org.id, f"${await balance_micros(session, org.id) / 1e6:,.2f}")
        out.print(table)

    in_store(read_settings(data_dir=data_dir), show)


@keys.command("create")
def create_api_key(org: OrgName, name: str = "cli", data_dir: DataDir = None) -> None:
    """Make a key; prints the key and nothing else. It is never shown again."""

    async def create(session: AsyncSession) -> None:
        typer.echo(await create_key(session, await service.get_org(session, org), name=name))

    in_store(read_settings(data_dir=data_dir), create)


@keys.command("list")
def list_keys(org: OrgName, data_dir: DataDir = None) -> None:
    """An organisation's keys, by what they begin with."""

    async def show(session: AsyncSession) -> None:
        table = Table("begins with", "id", "name", "state")
        for key in await service.list_keys(session, await service.get_org(session, org)):
            table.add_row(key.prefix, key.id, key.name, "revoked" if key.revoked_at else "valid")
        out.print(table)

    in_store(read_settings(data_dir=data_dir), show)


@keys.command("revoke")
def revoke_key(key: Annotated[str, typer.Argument(help="Its id.")], data_dir: DataDir = None) -> None:
    """Make a key invalid; every gateway refuses it within seconds."""

    async def revoke(session: AsyncSession) -> None:
        await service.revoke_key(session, key)
        out.print(f"Revoked {key}.", markup=False)

    in_store(read_settings(data_dir=data_dir), revoke)


@credit.command("add")
def add_credit(dollars: float, org: OrgName, data_dir: DataDir = None) -> None:
    """Put money on an organisation's balance."""

    async def add(session: AsyncSession) -> None:
        row = await service.get_org(session, org)
        amount = int(Decimal(str(dollars)) * MICROS_PER_DOLLAR)
        entry = Entry(org_id=row.id, source=f"credit:{new_id('credit')}", kind="credit", amount_micros=amount)
        await append(session, entry)
        out.print(f"{row.name} has ${await balance_micros(session, row.id) / 1e6:,.2f}.", markup=False)

    in_store(read_settings(data_dir=data_dir), add)


@ledger.command("verify")
def verify_ledger(data_dir: DataDir = None) -> None:
    """Add up all entries, and compare with the balances and the usage that are told; exits with 1 where they differ."""

    async def compare(session: AsyncSession) -> None:
        found = [difference async for difference in verify(session)]
        for difference in found:
            out.print(difference, markup=False)
        out.print("The ledger adds up." if not found else f"{len(found)} figures differ.")
        if found:
            raise typer.Exit(1)

    in_store(read_settings(data_dir=data_dir), compare)


@app.command("usage")
def show_usage(
    org: OrgName,
    days: Annotated[int, typer.Option(min=1, max=3660, help="How far back.")] = 30,
    by: Annotated[str, typer.Option(help="What to tell apart: key, model, kind, gpu.")] = "model,kind",
    bucket: Annotated[Bucket, typer.Option(help="hour, day or month.")] = Bucket.MONTH,
    data_dir: DataDir = None,
) -> None:
    """What an organisation used, and what it cost."""

    async def show(session: AsyncSession) -> None:
        now, groups = time.time(), groups_of(by)
        asked = Asked(now - days * DAY_SECONDS, now, bucket, groups)
        rows = await usage(session, (await service.get_org(session, org)).id, asked)
        out.print(usage_table(groups, rows))

    in_store(read_settings(data_dir=data_dir), show)


def main() -> None:
    """Errors that a person can mend end in a sentence, not in a traceback."""
    try:
        app()
    except ValidationError as error:
        for problem in error.errors():
            name = "LOAM_" + "_".join(str(part) for part in problem["loc"]).upper()
            err.print(f"{name}: {problem['msg']}", style="red", markup=False)
        sys.exit(2)
    except SettingsError as error:
        err.print(f"{error}: it must be JSON.", style="red", markup=False)
        sys.exit(2)
    except (APIError, *FORESEEN, SQLAlchemyError, OSError) as error:
        err.print(str(error)[:500], style="red", markup=False)
        sys.exit(1)
