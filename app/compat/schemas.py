"""Jobs, events and metrics in the words of the synth-ai clients: times are ISO 8601, errors a sentence."""

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from app.catalog.names import FULL
from app.catalog.spec import GpuChoice
from app.compat.translate import as_job
from app.jobs.metric_points import Point
from app.jobs.schemas import JobCreate
from app.jobs.states import EventType
from app.store.paging import PageQuery
from app.store.tables import Job

# No word for the end of a cancelled job: these clients would take it for a failure. Its status tells.
PHASES = {
    EventType.CREATED: "queued",
    EventType.STARTED: "running",
    EventType.RESTARTED: "restarted",
    EventType.PAUSED: "paused",
    EventType.RESUMED: "queued",
    EventType.TRAINED: "publishing",
    EventType.CANCELLED: "stopped",
    EventType.COMPLETED: "succeeded",
    EventType.FAILED: "failed",
}


class CompatJobCreate(JobCreate):
    """A job as these clients ask for it."""

    @model_validator(mode="before")
    @classmethod
    def translated(cls, body: Any) -> Any:
        return as_job(body) if isinstance(body, dict) else body


class JobsQuery(PageQuery):
    """Times are epoch seconds or ISO 8601; without a zone they are UTC."""

    status: str | None = None
    model: str | None = None
    file_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


class EventsQuery(BaseModel):
    since_seq: int = Field(0, ge=0, lt=2**31)
    after: str | None = Field(None, description="an event's id")
    limit: int = Field(200, ge=1, le=1000)


class CompatJobOut(BaseModel):
    job_id: str
    id: str
    status: str
    training_type: Literal["sft_offline"]
    base_model: str
    model: str
    fine_tuned_model: str | None
    training_file: str
    training_file_id: str
    validation_file: str | None
    hyperparameters: dict[str, Any]
    created_at: str
    updated_at: str
    started_at: str | None
    finished_at: str | None
    error: str | None
    metadata: dict[str, Any]

    @classmethod
    def of(cls, job: Job) -> "CompatJobOut":
        same = ("id", "status", "base_model", "model", "fine_tuned_model", "training_file", "validation_file")
        return cls(
            **{name: getattr(job, name) for name in (*same, "hyperparameters")},
            job_id=job.id,
            training_file_id=job.training_file,
            training_type="sft_offline",
            created_at=iso(job.created_at),
            updated_at=iso(job.updated_at),
            started_at=None if job.started_at is None else iso(job.started_at),
            finished_at=None if job.finished_at is None else iso(job.finished_at),
            error=job.error["message"] if job.error else None,
            metadata={**job.job_metadata, "effective_config": effective_config(job)},
        )


class JobsOut(BaseModel):
    jobs: list[CompatJobOut]
    has_more: bool


class ConfigOut(BaseModel):
    job_id: str
    config: dict[str, Any]


class EventsOut(BaseModel):
    events: list[dict[str, Any]]


class TimelineOut(EventsOut):
    timeline: list[dict[str, Any]]


class CompatPoint(BaseModel):
    name: str
    value: float
    step: int
    epoch: float | None
    created_at: str

    @classmethod
    def of(cls, point: Point) -> "CompatPoint":
        return cls(**{**point.model_dump(), "created_at": iso(point.created_at)})


class PointsOut(BaseModel):
    job_id: str
    points: list[CompatPoint]


def event_out(job_id: str, event: dict[str, Any]) -> dict[str, Any]:
    """From our event on the wire to theirs."""
    same = {name: event[name] for name in ("seq", "id", "message", "level", "data")}
    return {**same, "job_id": job_id, "type": event["event_type"], "created_at": iso(event["created_at"])}


def phase_out(job_id: str, event: dict[str, Any]) -> dict[str, Any]:
    """The entry of a timeline that an event makes which begins a phase."""
    return {**event_out(job_id, event), "phase": PHASES[event["event_type"]]}


def effective_config(job: Job) -> dict[str, Any]:
    """What the job runs with, in the form that these clients send it in."""
    gpu = GpuChoice.parse(job.gpu)
    return {
        "compute": {"gpu_type": gpu.type, "gpu_count": gpu.count},
        "data": {"validation_files": [job.validation_file] if job.validation_file else []},
        "training": {
            "mode": "full" if job.training_type == FULL else "lora",
            "use_qlora": job.hyperparameters.get("use_qlora", False),
        },
    }


def iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()
