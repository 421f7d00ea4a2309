"""The audit log: who did what to whom, when and from where; written in the transaction of the act, never changed."""

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.ids import new_id
from app.orgs.keys import CurrentKey
from app.store.tables import AuditEntry

TERMINAL = "cli"


class Action(StrEnum):
    ORG_CREATED = "organization.created"
    ORG_UPDATED = "organization.updated"
    ORG_DELETED = "organization.deleted"
    KEY_CREATED = "api_key.created"
    KEY_UPDATED = "api_key.updated"
    KEY_ROTATED = "api_key.rotated"
    KEY_REVOKED = "api_key.revoked"
    CREDIT_ADDED = "credit.added"
    JOB_CANCELLED = "fine_tuning.job.cancelled"


@dataclass(frozen=True)
class Actor:
    """A key, by its id, and the address it asked from; or a user of this host, on its terminal."""

    name: str
    address: str | None

    @classmethod
    def at_terminal(cls) -> Self:
        """By the user id of the process: what its environment says of the user, anybody can set."""
        try:
            name = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:  # as in a container that knows no names
            name = str(os.getuid())
        return cls(name, TERMINAL)

    @classmethod
    def of(cls, key: CurrentKey, address: str | None) -> Self:
        return cls(key.key_id, address)


@dataclass(frozen=True, kw_only=True)
class AuditFilter:
    org_id: str | None = None
    actor: str | None = None
    action: str | None = None
    target: str | None = None
    since: float | None = None
    until: float | None = None

    def rows(self) -> Select[AuditEntry]:
        wanted = select(AuditEntry)
        for column in ("org_id", "actor", "action", "target"):
            if (value := getattr(self, column)) is not None:
                wanted = wanted.where(getattr(AuditEntry, column) == value)
        if self.since is not None:
            wanted = wanted.where(AuditEntry.created_at >= self.since)
        return wanted if self.until is None else wanted.where(AuditEntry.created_at < self.until)


async def record(
    session: AsyncSession, actor: Actor, action: Action, org_id: str, target: str, details: Mapping[str, Any]
) -> None:
    """`details`: never a secret."""
    values = {"id": new_id("audit"), "org_id": org_id, "actor": actor.name, "address": actor.address}
    session.add(AuditEntry(**values, action=action, target=target, details=dict(details)))
    await session.flush()
