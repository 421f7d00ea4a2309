"""All tables on one page."""

import time
from typing import Any

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.base import Base

LIVE = text("deleted_at IS NULL")


class Org(Base):
    """Its limits are for all its keys together; None is no limit, and where the settings have one, theirs.

    The name of a deleted one is free again.
    """

    __tablename__ = "orgs"
    __table_args__ = (Index("uq_orgs_name", "name", unique=True, sqlite_where=LIVE, postgresql_where=LIVE),)

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    requests_per_minute: Mapped[int | None]
    tokens_per_minute: Mapped[int | None]
    requests_at_once: Mapped[int | None]
    monthly_budget_micros: Mapped[int | None]
    max_stored_files: Mapped[int | None]
    max_stored_bytes: Mapped[int | None]
    max_queued_jobs: Mapped[int | None]
    created_at: Mapped[float] = mapped_column(default=time.time)
    deleted_at: Mapped[float | None]


class ApiKey(Base):
    """Only the SHA-256 of a key is kept; `prefix` is what people recognise it by.

    `models` are those it may use, None for all. `last_used_at` is right to a minute.
    """

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[str] = mapped_column(ForeignKey("orgs.id"), index=True)
    name: Mapped[str]
    prefix: Mapped[str]
    key_hash: Mapped[str] = mapped_column(unique=True)
    role: Mapped[str]
    models: Mapped[list[Any] | None]
    requests_per_minute: Mapped[int | None]
    tokens_per_minute: Mapped[int | None]
    requests_at_once: Mapped[int | None]
    monthly_budget_micros: Mapped[int | None]
    created_at: Mapped[float] = mapped_column(default=time.time)
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]
    last_used_at: Mapped[float | None]


class Revision(Base):
    """How often something has changed that gateways remember: while the number is the same, so is the thing."""

    __tablename__ = "revisions"

    name: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int]


class RateLevel(Base):
    """When a rate limit's bucket will be full again; `subject` is the id of a key or an organisation, and of what."""

    __tablename__ = "rate_levels"

    subject: Mapped[str] = mapped_column(primary_key=True)
    full_at: Mapped[float]


class UnderWay(Base):
    """How many requests of a subject (as of a rate limit) a gateway had under way when it last told."""

    __tablename__ = "under_way"

    gateway: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True, index=True)
    number: Mapped[int]
    expires_at: Mapped[float]


class AuditEntry(Base):
    """Append-only: who (a key's id, or `terminal`) did what to whom, from where. Never holds a secret."""

    __tablename__ = "audit_entries"
    __table_args__ = (Index(None, "org_id", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[str] = mapped_column(ForeignKey("orgs.id"))
    actor: Mapped[str]
    address: Mapped[str | None]
    action: Mapped[str]
    target: Mapped[str]
    details: Mapped[dict[str, Any]]
    created_at: Mapped[float] = mapped_column(default=time.time)


class File(Base):
    """`status_details` says why a file is unusable; the bytes are in storage under the id, until it is deleted.

    Of a training file, `row_lengths` is how many rows have about how many tokens.
    """

    __tablename__ = "files"
    __table_args__ = (Index(None, "org_id", "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[str] = mapped_column(ForeignKey("orgs.id"))
    filename: Mapped[str]
    purpose: Mapped[str]
    size_bytes: Mapped[int]
    sha256: Mapped[str]
    n_rows: Mapped[int | None]
    status: Mapped[str]
    status_details: Mapped[str | None]
    problems: Mapped[list[Any] | None]
    n_problems: Mapped[int | None]
    warnings: Mapped[list[Any] | None]
    row_lengths: Mapped[dict[str, Any] | None]
    created_at: Mapped[float] = mapped_column(default=time.time)
    deleted_at: Mapped[float | None]


class Job(Base):
    """A fine-tune, and its own queue entry.

    `stage` is what a running job needs next: a worker to `train` it, then a gateway to `publish` it. Whoever
    works on it holds a lease; `lease_token` grows with every claim and fences off those who lost theirs.
    `metrics_offset` is how many bytes of the run's metrics have become events, `memory_bytes` what each GPU must
    have, as far as it is known, and `no_worker_at` when its owner was told that no worker can run it. `key_id` is
    whose key created it, and `estimated_micros` what it was expected to cost then, 0 where nobody could tell. A
    paused job that `waits_for_credit` goes on by itself once there is some.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index(None, "org_id", "created_at", "id"),
        Index(None, "org_id", "started_at"),
        Index(None, "status", "stage", "created_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[str] = mapped_column(ForeignKey("orgs.id"))
    key_id: Mapped[str | None]
    status: Mapped[str]
    stage: Mapped[str]
    model: Mapped[str]
    base_model: Mapped[str]
    init_adapter: Mapped[str | None]
    gpu: Mapped[str]
    memory_bytes: Mapped[int] = mapped_column(default=0)
    training_type: Mapped[str]
    training_file: Mapped[str]
    validation_file: Mapped[str | None]
    suffix: Mapped[str | None]
    seed: Mapped[int]
    hyperparameters: Mapped[dict[str, Any]]
    job_metadata: Mapped[dict[str, Any]]
    integrations: Mapped[list[Any]] = mapped_column(default=list)
    result_files: Mapped[list[Any]]
    fine_tuned_model: Mapped[str | None]
    error: Mapped[dict[str, Any] | None]
    trained_tokens: Mapped[int]
    gpu_seconds: Mapped[float]
    estimated_micros: Mapped[int] = mapped_column(default=0)
    last_seq: Mapped[int]
    metrics_offset: Mapped[int]
    attempts: Mapped[int]
    no_worker_at: Mapped[float | None]
    lease_holder: Mapped[str | None]
    lease_token: Mapped[int]
    lease_expires_at: Mapped[float | None]
    waits_for_credit: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[float] = mapped_column(default=time.time)
    updated_at: Mapped[float] = mapped_column(default=time.time)
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]


class JobEvent(Base):
    """What happened to a job; `seq` is dense from 1."""

    __tablename__ = "job_events"
    __table_args__ = (UniqueConstraint("job_id", "seq"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    seq: Mapped[int]
    level: Mapped[str]
    type: Mapped[str]
    event_type: Mapped[str]
    message: Mapped[str]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[float] = mapped_column(default=time.time)


class Checkpoint(Base):
    """A PEFT folder in storage, chat-able as `<fine-tuned model>:ckpt-step-<step>`."""

    __tablename__ = "checkpoints"
    __table_args__ = (UniqueConstraint("job_id", "step"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    step: Mapped[int]
    metrics: Mapped[dict[str, Any]]
    created_at: Mapped[float] = mapped_column(default=time.time)


class Adapter(Base):
    """A published fine-tune. `id` is its immutable name inside engines, `name` the public `ft:…` one."""

    __tablename__ = "adapters"
    __table_args__ = (Index(None, "org_id", "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[str] = mapped_column(ForeignKey("orgs.id"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), unique=True)
    name: Mapped[str] = mapped_column(unique=True)
    base_model: Mapped[str]
    created_at: Mapped[float] = mapped_column(default=time.time)
    deleted_at: Mapped[float | None]


class LedgerEntry(Base):
    """Append-only. `source` names what is charged or credited, so that a repeat is harmless; `key_id` is whose key
    caused it, `price_version` the prices it was charged by.

    The database itself adds each new row to `balances` and `usage_hours`, in the same statement.
    """

    __tablename__ = "ledger_entries"
    __table_args__ = (Index(None, "org_id", "created_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[str] = mapped_column(ForeignKey("orgs.id"))
    key_id: Mapped[str | None]
    source: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    amount_micros: Mapped[int]
    model: Mapped[str | None]
    gpu: Mapped[str | None]
    prompt_tokens: Mapped[int]
    cached_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    reasoning_tokens: Mapped[int]
    trained_tokens: Mapped[int]
    gpu_seconds: Mapped[float]
    price_version: Mapped[str | None]
    created_at: Mapped[float] = mapped_column(default=time.time)


class Balance(Base):
    """The sum of an organisation's entries; whoever decides on its money holds this row."""

    __tablename__ = "balances"

    org_id: Mapped[str] = mapped_column(ForeignKey("orgs.id"), primary_key=True)
    micros: Mapped[int]


class UsageSums(Base):
    """The sums of the entries of a stretch of time, by its beginning, that have these in common; `""`: none."""

    __abstract__ = True

    org_id: Mapped[str] = mapped_column(ForeignKey("orgs.id"), primary_key=True, sort_order=-2)
    key_id: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    gpu: Mapped[str] = mapped_column(primary_key=True)
    n_entries: Mapped[int]
    amount_micros: Mapped[int]
    prompt_tokens: Mapped[int]
    cached_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    reasoning_tokens: Mapped[int]
    trained_tokens: Mapped[int]
    gpu_seconds: Mapped[float]


class UsageHour(UsageSums):
    """What the database adds new entries to."""

    __tablename__ = "usage_hours"

    hour_at: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, sort_order=-1)


class UsageClosedHour(UsageSums):
    """Of days that are over: what has moved here from `usage_hours`, and is in `usage_days` too."""

    __tablename__ = "usage_closed_hours"

    hour_at: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, sort_order=-1)


class UsageDay(UsageSums):
    """The sums of a day's closed hours."""

    __tablename__ = "usage_days"

    day_at: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, sort_order=-1)


class Hold(Base):
    """What a gateway's requests, or a job, may spend of an organisation's balance, for as long as the lease lasts.

    `wanted_micros`: how much it lacks; who holds more than they use give it back. `kept_micros` stay held beyond the
    lease: what a job has cost already, by the key of `key_id`, and will be charged for when it ends.
    """

    __tablename__ = "holds"

    holder: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[str] = mapped_column(ForeignKey("orgs.id"), primary_key=True, index=True)
    key_id: Mapped[str | None]
    micros: Mapped[int]
    kept_micros: Mapped[int] = mapped_column(default=0)
    wanted_micros: Mapped[int]
    expires_at: Mapped[float]


class PriceVersion(Base):
    """The catalog's prices as they were from some day on; the id is a hash of them."""

    __tablename__ = "price_versions"

    id: Mapped[str] = mapped_column(primary_key=True)
    prices: Mapped[dict[str, Any]]
    created_at: Mapped[float] = mapped_column(default=time.time)


class StoredResponse(Base):
    """A Responses object as it was answered, the items it was asked with, and the one it continues."""

    __tablename__ = "stored_responses"

    id: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[str] = mapped_column(ForeignKey("orgs.id"), index=True)
    previous_response_id: Mapped[str | None]
    input_items: Mapped[list[Any]]
    body: Mapped[dict[str, Any]]
    created_at: Mapped[float] = mapped_column(default=time.time, index=True)


class ResponseLease(Base):
    """A gateway works on a background response. While there is a lease the response is not final."""

    __tablename__ = "response_leases"

    response_id: Mapped[str] = mapped_column(ForeignKey("stored_responses.id"), primary_key=True)
    expires_at: Mapped[float]


class ResponseEventBatch(Base):
    """Events of a background response that were written together; `last_number` is the last one's sequence number."""

    __tablename__ = "response_event_batches"

    response_id: Mapped[str] = mapped_column(ForeignKey("stored_responses.id"), primary_key=True)
    last_number: Mapped[int] = mapped_column(primary_key=True)
    events: Mapped[list[Any]]


class IdempotencyKey(Base):
    """What a creating POST under an `Idempotency-Key` made, and a hash of what it was asked.

    `expires_at`: while it is still being made; then nobody makes it any more, unless they said so meanwhile.
    `answer`: sealed, what is kept nowhere else.
    """

    __tablename__ = "idempotency_keys"

    org_id: Mapped[str] = mapped_column(ForeignKey("orgs.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[str]
    object_id: Mapped[str]
    created_at: Mapped[float] = mapped_column(default=time.time)
    expires_at: Mapped[float | None]
    answer: Mapped[bytes | None]


class DeviceLease(Base):
    """Who uses a device (`host/TYPE/index`): an engine of a gateway, or a job."""

    __tablename__ = "device_leases"

    device: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str] = mapped_column(index=True)
    expires_at: Mapped[float]


class SealingKey(Base):
    """What is handed to clients sealed is sealed with this; made once, by the first gateway."""

    __tablename__ = "sealing_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[bytes]


class DeviceWish(Base):
    """A job that a worker on this host could run now, or a request that its gateway could serve, were devices free;
    engines there give way to it.
    """

    __tablename__ = "device_wishes"

    host: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str] = mapped_column(primary_key=True)
    gpu: Mapped[str]
    wished_at: Mapped[float]
    expires_at: Mapped[float]


class Worker(Base):
    """A worker that lives, and what it can run: GPUs by type, how many, and the memory of each."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    gpus: Mapped[list[Any]]
    since: Mapped[float]
    expires_at: Mapped[float]


class EngineStatus(Base):
    """What a gateway last said of one of its engines, for whoever looks from outside; it means nothing to the pool."""

    __tablename__ = "engine_statuses"

    id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    model: Mapped[str]
    gpu: Mapped[str]
    state: Mapped[str]
    since: Mapped[float]
    in_flight: Mapped[int]
    tokens_per_second: Mapped[float]
    memory_bytes: Mapped[int]
    adapters: Mapped[list[Any]]
    expires_at: Mapped[float]
