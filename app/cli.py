"""The command `loam`.

What imports the server, a second's work, is imported by those commands alone that run it.
"""

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.sums import DAY_SECONDS
from app.billing.usage import Asked, Bucket, groups_of, usage
from app.billing.verify import verify
from app.catalog.load import load_catalog
from app.cli_audit import show_audit
from app.cli_credit import credit
from app.cli_export import Found, export, find
from app.cli_jobs import jobs
from app.cli_keys import keys
from app.cli_orgs import orgs
from app.demo import run_demo
from app.devices import leases
from app.devices.inventory import find_devices, free_memory
from app.engines.statuses import list_statuses
from app.errors import APIError, Foreseen
from app.files.storage import Storage
from app.orgs.service import get_org
from app.overview import engines_table, gpus_table, usage_table
from app.store.session import Store
from app.terminal import DataDir, OrgName, err, look_in_store, on_store, out, read_settings, show

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, serve, meter: one server, your hardware.",
)
ledger = typer.Typer(no_args_is_help=True, help="The ledger.")
app.add_typer(orgs, name="orgs")
app.add_typer(keys, name="keys")
app.add_typer(credit, name="credit")
app.add_typer(ledger, name="ledger")
app.add_typer(jobs, name="jobs")
app.command("audit")(show_audit)

Port = Annotated[int | None, typer.Option(help="Port to listen on [LOAM_PORT, 8000].")]
Host = Annotated[str | None, typer.Option(help="Address to listen on [LOAM_HOST, 127.0.0.1].")]
Simulate = Annotated[bool | None, typer.Option("--simulate", help="Simulated engines and training: no GPU, no torch.")]


@app.command()
def up(data_dir: DataDir = None, host: Host = None, port: Port = None, simulate: Simulate = None) -> None:
    """Gateway and one worker in this terminal; Ctrl-C stops all of it."""
    from app.up import run_up  # noqa: PLC0415 - the server

    settings = read_settings(data_dir=data_dir, host=host, port=port, simulate=simulate)
    if "gpu_fallback" not in settings.model_fields_set:
        settings.gpu_fallback = True  # whoever tries it out has some GPU or none, not the one that a client names
    raise typer.Exit(run_up(settings, with_worker=True))


@app.command()
def serve(data_dir: DataDir = None, host: Host = None, port: Port = None, simulate: Simulate = None) -> None:
    """The gateway alone: API and engine pool."""
    from app.up import run_up  # noqa: PLC0415 - the server

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

    async def look(session: AsyncSession) -> None:
        names = {status.id: status.model for status in await list_statuses(session)}
        holders = {device: names.get(holder, holder) for device, holder in (await leases.holders(session)).items()}
        show(gpus_table(devices, holders, free_memory(devices)))

    look_in_store(settings, look)


@app.command()
def engines(data_dir: DataDir = None) -> None:
    """What every gateway's engines do at this moment."""

    async def look(session: AsyncSession) -> None:
        show(engines_table(await list_statuses(session)))

    look_in_store(read_settings(data_dir=data_dir), look)


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

    export(Storage(settings.data_dir), catalog, look_in_store(settings, look), folder, merged=merged)
    out.print(f"Exported {name} to {folder}.", markup=False)


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show it.")] = False, data_dir: DataDir = None
) -> None:
    """Remove what nobody needs any more, as every gateway does once an hour."""
    from app.cli_gc import collect_garbage, swept_table  # noqa: PLC0415 - what gateways sweep is all over the server

    swept = collect_garbage(read_settings(data_dir=data_dir), dry=dry_run)
    if swept:
        show(swept_table(swept))
    else:
        out.print("There is nothing to remove.")


@ledger.command("verify")
def verify_ledger(data_dir: DataDir = None) -> None:
    """Add up all entries, and compare with the balances and the usage that are told; exits with 1 where they differ."""

    async def compare(store: Store) -> list[str]:
        return [difference async for difference in verify(store)]

    found = on_store(read_settings(data_dir=data_dir), compare)
    for difference in found:
        out.print(difference, markup=False)
    out.print("The ledger adds up." if not found else f"{len(found)} figures differ.")
    if found:
        raise typer.Exit(1)


@app.command("usage")
def show_usage(
    org: OrgName,
    days: Annotated[int, typer.Option(min=1, max=3660, help="How far back.")] = 30,
    by: Annotated[str, typer.Option(help="What to tell apart: key, model, kind, gpu.")] = "model,kind",
    bucket: Annotated[Bucket, typer.Option(help="hour, day or month.")] = Bucket.MONTH,
    data_dir: DataDir = None,
) -> None:
    """What an organisation used, and what it cost."""

    async def look(session: AsyncSession) -> None:
        now, groups = time.time(), groups_of(by)
        asked = Asked(now - days * DAY_SECONDS, now, bucket, groups)
        rows = await usage(session, (await get_org(session, org)).id, asked)
        show(usage_table(groups, rows))

    look_in_store(read_settings(data_dir=data_dir), look)


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
    except (APIError, Foreseen, SQLAlchemyError, OSError) as error:
        err.print(str(error)[:500], style="red", markup=False)
        sys.exit(1)
