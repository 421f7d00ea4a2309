"""What a change of a row changed."""

from collections.abc import Mapping
from typing import Any

from app.store.base import Base


def apply(row: Base, values: Mapping[str, Any]) -> dict[str, Any]:
    """Set the columns; what of them was another before, as it was and as it is."""
    changed = {}
    for name, value in values.items():
        before = getattr(row, name)
        if before != value:
            setattr(row, name, value)
            changed[name] = {"from": before, "to": value}
    return changed
