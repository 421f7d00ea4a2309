"""What the commands for organisations and keys take for limits and for moments."""

import re
import time
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import typer

from app.catalog.spec import MICROS_PER_DOLLAR
from app.moments import epoch_seconds
from app.store.tables import ApiKey, Org

NONE = "none"
SECONDS = {"m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}

Requests = Annotated[str | None, typer.Option("--requests-per-minute", metavar="N|none", help="None is no limit.")]
Tokens = Annotated[str | None, typer.Option("--tokens-per-minute", metavar="N|none", help="None is no limit.")]
AtOnce = Annotated[str | None, typer.Option("--requests-at-once", metavar="N|none", help="None is the server's limit.")]
Budget = Annotated[str | None, typer.Option("--monthly-budget", metavar="DOLLARS|none", help="None is no limit.")]
Files = Annotated[str | None, typer.Option("--stored-files", metavar="N|none", help="None is the server's limit.")]
Bytes = Annotated[str | None, typer.Option("--stored-bytes", metavar="N|none", help="None is the server's limit.")]
Jobs = Annotated[str | None, typer.Option("--queued-jobs", metavar="N|none", help="None is the server's limit.")]


def limits_of(
    requests: str | None, tokens: str | None, at_once: str | None, budget: str | None
) -> dict[str, int | None]:
    """By the names of the table's columns; what was not given is left out."""
    return _given(
        requests_per_minute=_number("--requests-per-minute", requests, 1),
        tokens_per_minute=_number("--tokens-per-minute", tokens, 1),
        requests_at_once=_number("--requests-at-once", at_once, 1),
        monthly_budget_micros=_number("--monthly-budget", budget, MICROS_PER_DOLLAR),
    )


def quotas_of(files: str | None, n_bytes: str | None, jobs: str | None) -> dict[str, int | None]:
    """As `limits_of` does."""
    return _given(
        max_stored_files=_number("--stored-files", files, 1),
        max_stored_bytes=_number("--stored-bytes", n_bytes, 1),
        max_queued_jobs=_number("--queued-jobs", jobs, 1),
    )


def _given(**numbers: Any) -> dict[str, int | None]:
    return {name: number for name, number in numbers.items() if number is not ...}


def _number(option: str, text: str | None, scale: int) -> Any:
    """`...` for what was not given, None for `none`."""
    if text is None:
        return ...
    if text.lower() == NONE:
        return None
    try:
        number = Decimal(text) * scale
    except InvalidOperation:
        number = Decimal(-1)
    if not number.is_finite() or not 0 <= number <= 10**15 or number != int(number):
        raise typer.BadParameter(f"{text!r} is neither a number from 0 on nor 'none'", param_hint=option)
    return int(number)


def dollars(micros: int) -> str:
    return f"${micros / MICROS_PER_DOLLAR:,.2f}"


def told(row: ApiKey | Org) -> list[str]:
    """Its limits, in words."""
    limits = [
        ("requests/min", row.requests_per_minute),
        ("tokens/min", row.tokens_per_minute),
        ("requests at once", row.requests_at_once),
    ]
    if isinstance(row, Org):
        quotas = (row.max_stored_files, "files"), (row.max_stored_bytes, "bytes"), (row.max_queued_jobs, "queued jobs")
        limits += [(what, number) for number, what in quotas]
    shown = [f"{number:,} {what}" for what, number in limits if number is not None]
    budget = row.monthly_budget_micros
    return shown if budget is None else [*shown, f"{dollars(budget)}/month"]


def moment_of(text: str, option: str, *, direction: int = 1) -> float:
    """`30d` from now (ago, with -1), or a date or time as ISO 8601 writes them, in UTC where no zone is told."""
    if match := re.fullmatch(r"([0-9]{1,6})([mhdw])", text):
        return time.time() + direction * int(match[1]) * SECONDS[match[2]]
    try:
        return epoch_seconds(datetime.fromisoformat(text))
    except ValueError as error:
        message = f"{text!r} is neither a time like 2027-01-31 nor a while like 12h, 30d, 8w"
        raise typer.BadParameter(message, param_hint=option) from error


def day(moment: float | None) -> str:
    return "-" if moment is None else f"{datetime.fromtimestamp(moment).astimezone():%Y-%m-%d %H:%M}"
