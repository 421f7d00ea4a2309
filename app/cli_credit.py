"""`loam credit`: money on balances, for whoever runs the server."""

from decimal import Decimal
from typing import Annotated

import typer
from rich.table import Column, Table
from sqlalchemy.ext.asyncio import AsyncSession

from app.admin import credit as acts
from app.billing.ledger import balance_micros
from app.catalog.spec import MICROS_PER_DOLLAR
from app.cli_limits import day, dollars
from app.ids import new_id
from app.orgs.audit import Actor
from app.orgs.service import get_org
from app.store.tables import LedgerEntry
from app.terminal import DataDir, OrgName, in_store, look_in_store, out, read_settings, show

credit = typer.Typer(no_args_is_help=True, help="Credit.")


@credit.command("add", context_settings={"ignore_unknown_options": True})
def add_credit(
    amount: Annotated[float, typer.Argument(metavar="DOLLARS")], org: OrgName, data_dir: DataDir = None
) -> None:
    """Put money on an organisation's balance; less than 0 takes back what is neither spent nor held."""

    async def add(session: AsyncSession) -> None:
        row = await get_org(session, org)
        micros = int(Decimal(str(amount)) * MICROS_PER_DOLLAR)
        await acts.add_credit(session, Actor.at_terminal(), row, micros, new_id("credit"))
        out.print(f"{row.name} has {dollars(await balance_micros(session, row.id))}.", markup=False)

    in_store(read_settings(data_dir=data_dir), add)


@credit.command("show")
def show_credit(org: OrgName, data_dir: DataDir = None) -> None:
    """What was put on an organisation's balance, and what is left of it."""

    async def look(session: AsyncSession) -> None:
        row = await get_org(session, org)
        table = Table("when", Column("amount", justify="right"), "for")
        for entry in await session.scalars(acts.credits_of(row.id).order_by(LedgerEntry.id)):
            table.add_row(day(entry.created_at), dollars(entry.amount_micros), entry.source)
        show(table)
        out.print(f"{row.name} has {dollars(await balance_micros(session, row.id))}.", markup=False)

    look_in_store(read_settings(data_dir=data_dir), look)
