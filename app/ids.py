"""Prefixed ids that sort by the moment they were made."""

from ulid import ULID

SEPARATORS = {"file": "-", "ftjob": "-", "ftevent": "-", "ftckpt": "-", "chatcmpl": "-"}


def new_id(prefix: str) -> str:
    """`file-01k…`, `resp_01k…`: OpenAI's separators, a lower-case ULID behind them."""
    return f"{prefix}{SEPARATORS.get(prefix, '_')}{str(ULID()).lower()}"
