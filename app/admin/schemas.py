"""Organisations, keys, credit and the audit log at the wire; keys in the shape of OpenAI's admin and project keys."""

import time
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from app.billing.prices import MICROS_PER_CENT, cents
from app.moments import epoch_seconds
from app.orgs.audit import TERMINAL, AuditFilter
from app.orgs.roles import ADMINS, Role
from app.store.paging import PageQuery
from app.store.tables import ApiKey, AuditEntry, LedgerEntry, Org

Name = Annotated[str, Field(min_length=1, max_length=100)]
Limit = Annotated[int, Field(ge=0, le=10**12)] | None
Quota = Annotated[int, Field(ge=0, le=2**60)] | None
ModelName = Annotated[str, Field(min_length=1, max_length=300)]
OwnRole = Literal[Role.MEMBER, Role.INFERENCE, Role.READ]


# 1) what comes in; a limit of null is none, one that is left out stays as it is
class LimitsIn(BaseModel):
    requests_per_minute: Limit = None
    tokens_per_minute: Limit = None
    requests_at_once: Limit = None
    monthly_budget_cents: Limit = None

    def columns(self) -> dict[str, Any]:
        """What was given, by the names of the table's columns."""
        given = self.model_dump(exclude_unset=True)
        if "monthly_budget_cents" in given:
            budget = given.pop("monthly_budget_cents")
            given["monthly_budget_micros"] = None if budget is None else budget * MICROS_PER_CENT
        return given


class OrgLimitsIn(LimitsIn):
    """Quotas, and requests at once, are the server's where they are null."""

    max_stored_files: Limit = None
    max_stored_bytes: Quota = None
    max_queued_jobs: Limit = None


class OrgUpdate(OrgLimitsIn):
    name: Name = ""


class OrgCreate(OrgLimitsIn):
    name: Name


class ExpiryIn(LimitsIn):
    """`expires_in_seconds` counts from now; null in either is never."""

    expires_at: Annotated[int, Field(ge=0, le=2**40)] | None = None
    expires_in_seconds: Annotated[int, Field(ge=1, le=2**40)] | None = None

    @model_validator(mode="after")
    def _has_one_end(self) -> Self:
        if {"expires_at", "expires_in_seconds"} <= self.model_fields_set:
            raise ValueError("expires_at and expires_in_seconds say the same: give one of them")
        return self

    def columns(self) -> dict[str, Any]:
        given = super().columns()
        if "expires_in_seconds" in given:
            seconds = given.pop("expires_in_seconds")
            given["expires_at"] = None if seconds is None else time.time() + seconds
        return given


class AdminKeyCreate(ExpiryIn):
    name: Name


class OwnKeyUpdate(ExpiryIn):
    name: Name = ""
    role: OwnRole = Role.MEMBER
    models: list[ModelName] | None = None


class OwnKeyCreate(OwnKeyUpdate):
    name: Name


class KeyUpdate(OwnKeyUpdate):
    role: Role = Role.MEMBER  # type: ignore[assignment]


class KeyCreate(KeyUpdate):
    name: Name


class CreditIn(BaseModel):
    """Less than 0 takes back what is neither spent nor held."""

    amount_cents: int = Field(ge=-(10**11), le=10**11)


class AuditQuery(PageQuery):
    """`since` and `until`: ISO 8601 or epoch seconds, UTC where no zone is told."""

    actor: str | None = Field(None, description="a key's id, or a user on the server's terminal")
    type: str | None = Field(None, description="as organization.created, api_key.rotated, credit.added")
    target: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def filter(self, org_id: str | None) -> AuditFilter:
        since, until = (None if moment is None else epoch_seconds(moment) for moment in (self.since, self.until))
        named = {"actor": self.actor, "action": self.type, "target": self.target}
        return AuditFilter(org_id=org_id, since=since, until=until, **named)


class ServerAuditQuery(AuditQuery):
    org: str | None = Field(None, description="name or id; of a deleted one the id")


# 2) what goes out
class LimitsOut(BaseModel):
    requests_per_minute: int | None
    tokens_per_minute: int | None
    requests_at_once: int | None
    monthly_budget_cents: int | None


def limits_out(row: ApiKey | Org) -> dict[str, int | None]:
    budget = row.monthly_budget_micros
    return {
        "requests_per_minute": row.requests_per_minute,
        "tokens_per_minute": row.tokens_per_minute,
        "requests_at_once": row.requests_at_once,
        "monthly_budget_cents": None if budget is None else cents(budget),
    }


class OrgOut(LimitsOut):
    id: str
    object: Literal["organization"]
    name: str
    created_at: int
    balance_cents: int
    max_stored_files: int | None
    max_stored_bytes: int | None
    max_queued_jobs: int | None

    @classmethod
    def of(cls, org: Org, balance_micros: int) -> Self:
        created_at, balance = int(org.created_at), cents(balance_micros)
        fields = {"id": org.id, "name": org.name, "created_at": created_at, "balance_cents": balance}
        quotas = {name: getattr(org, name) for name in ("max_stored_files", "max_stored_bytes", "max_queued_jobs")}
        return cls(object="organization", **fields, **quotas, **limits_out(org))


class ServiceAccount(BaseModel):
    id: str
    name: str
    created_at: int
    role: str


class OwnerOut(ServiceAccount):
    """The organisation: keys are no person's."""

    object: Literal["organization.service_account"]
    type: Literal["service_account"]
    service_account: ServiceAccount


class KeyOut(LimitsOut):
    """`redacted_value` is what the key begins with."""

    id: str
    object: Literal["organization.admin_api_key", "organization.project.api_key"]
    name: str
    redacted_value: str
    created_at: int
    expires_at: int | None
    last_used_at: int | None
    status: Literal["active", "expired", "revoked"]
    organization_id: str
    role: Role
    models: list[str] | None
    owner: OwnerOut
    owner_project_access: Literal["active"]

    @classmethod
    def of(cls, key: ApiKey, org: Org, **more: Any) -> Self:
        return cls(
            id=key.id,
            object=object_of(key),
            name=key.name,
            redacted_value=f"{key.prefix}...",
            created_at=int(key.created_at),
            expires_at=whole(key.expires_at),
            last_used_at=whole(key.last_used_at),
            status=status_of(key),
            organization_id=org.id,
            role=Role(key.role),
            models=key.models,
            owner=owner_of(key, org),
            owner_project_access="active",
            **limits_out(key),
            **more,
        )


class NewKeyOut(KeyOut):
    """`value` is the key itself, shown this once."""

    value: str


class KeyDeleted(BaseModel):
    id: str
    object: Literal["organization.admin_api_key.deleted", "organization.project.api_key.deleted"]
    deleted: Literal[True]

    @classmethod
    def of(cls, key: ApiKey) -> Self:
        return cls(id=key.id, object=f"{object_of(key)}.deleted", deleted=True)


class OrgDeleted(BaseModel):
    id: str
    object: Literal["organization.deleted"]
    deleted: Literal[True]


class ProjectOut(BaseModel):
    id: str
    object: Literal["organization.project"]
    name: str
    created_at: int
    archived_at: None
    status: Literal["active"]

    @classmethod
    def of(cls, org: Org) -> Self:
        fields = {"id": org.id, "name": org.name, "created_at": int(org.created_at)}
        return cls(object="organization.project", archived_at=None, status="active", **fields)


class CreditOut(BaseModel):
    """`source` names what it was for, as `welcome` or the credit's id."""

    id: str
    object: Literal["credit"]
    amount_cents: int
    source: str
    created_at: int

    @classmethod
    def of(cls, entry: LedgerEntry) -> Self:
        amount, created_at = cents(entry.amount_micros), int(entry.created_at)
        return cls(id=entry.id, object="credit", amount_cents=amount, source=entry.source, created_at=created_at)


class CreditAdded(BaseModel):
    id: str
    object: Literal["credit"]
    organization_id: str
    amount_cents: int
    balance_cents: int


class AuditKey(BaseModel):
    id: str


class AuditActor(BaseModel):
    """A key, or a user on the server's terminal."""

    type: Literal["api_key", "terminal"]
    id: str
    api_key: AuditKey | None


class AuditOut(BaseModel):
    id: str
    object: Literal["organization.audit_log"]
    type: str
    effective_at: int
    organization_id: str
    actor: AuditActor
    address: str | None
    target: str
    details: dict[str, Any]

    @classmethod
    def of(cls, entry: AuditEntry) -> Self:
        return cls(
            id=entry.id,
            object="organization.audit_log",
            type=entry.action,
            effective_at=int(entry.created_at),
            organization_id=entry.org_id,
            actor=actor_of(entry),
            address=entry.address,
            target=entry.target,
            details=entry.details,
        )


def actor_of(entry: AuditEntry) -> AuditActor:
    if entry.address == TERMINAL:
        return AuditActor(type="terminal", id=entry.actor, api_key=None)
    return AuditActor(type="api_key", id=entry.actor, api_key=AuditKey(id=entry.actor))


def owner_of(key: ApiKey, org: Org) -> OwnerOut:
    role = "owner" if key.role in ADMINS else "member"
    account = {"id": org.id, "name": org.name, "created_at": int(org.created_at), "role": role}
    kind: dict[str, Any] = {"object": "organization.service_account", "type": "service_account"}
    return OwnerOut(**account, **kind, service_account=ServiceAccount(**account))


def object_of(key: ApiKey) -> Literal["organization.admin_api_key", "organization.project.api_key"]:
    return "organization.admin_api_key" if key.role in ADMINS else "organization.project.api_key"


def status_of(key: ApiKey) -> Literal["active", "expired", "revoked"]:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= time.time() else "active"


def whole(moment: float | None) -> int | None:
    return None if moment is None else int(moment)
