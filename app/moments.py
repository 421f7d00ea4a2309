"""Moments as the wire tells them, and the months that money is counted by: all UTC."""

from datetime import UTC, datetime


def epoch_seconds(moment: datetime) -> float:
    """One without a zone is UTC."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def iso(moment: int) -> str:
    """Whole epoch seconds as `2026-11-29T00:00:00Z`."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"


def month_began(moment: datetime) -> datetime:
    """The beginning of the month that a moment in UTC lies in."""
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
