"""A job's metrics as points of named curves."""

from collections.abc import Iterator

from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs.states import EventType
from app.store.tables import Job, JobEvent

CURVES = {
    "train.loss": (EventType.PROGRESS, "train_loss"),
    "train.accuracy": (EventType.PROGRESS, "train_mean_token_accuracy"),
    "train.learning_rate": (EventType.PROGRESS, "learning_rate"),
    "train.grad_norm": (EventType.PROGRESS, "grad_norm"),
    "train.tokens_per_second": (EventType.PROGRESS, "tokens_per_second"),
    "val.loss": (EventType.VALIDATION, "valid_loss"),
    "val.accuracy": (EventType.VALIDATION, "valid_mean_token_accuracy"),
}


class MetricsQuery(BaseModel):
    after_step: int | None = None
    limit: int = Field(500, ge=1, le=10_000)
    name: str | None = None


class Point(BaseModel):
    name: str
    value: float
    step: int
    epoch: float | None
    created_at: int


class MetricsOut(BaseModel):
    job_id: str
    points: list[Point]


async def list_points(session: AsyncSession, job: Job, query: MetricsQuery) -> list[Point]:
    """Ascending: the first past `after_step`, or without it the latest."""
    wanted = {name: curve for name, curve in CURVES.items() if query.name in (None, name)}
    types = {event_type for event_type, _ in wanted.values()}
    rows = select(JobEvent).where(JobEvent.job_id == job.id, JobEvent.event_type.in_(types)).limit(query.limit)
    if query.after_step is None:
        events = list(await session.scalars(rows.order_by(JobEvent.seq.desc())))[::-1]
        return [point for event in events for point in _points(event, wanted)][-query.limit :]
    rows = rows.where(JobEvent.data["step"].as_integer() > query.after_step).order_by(JobEvent.seq)
    return [point for event in await session.scalars(rows) for point in _points(event, wanted)][: query.limit]


def _points(event: JobEvent, wanted: dict[str, tuple[EventType, str]]) -> Iterator[Point]:
    for name, (event_type, key) in wanted.items():
        if event.event_type == event_type and event.data.get(key) is not None:
            yield Point(
                name=name,
                value=event.data[key],
                step=event.data["step"],
                epoch=event.data.get("epoch"),
                created_at=int(event.created_at),
            )
