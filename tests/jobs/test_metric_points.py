"""The curves of a job are told as points, oldest first."""

import pytest

from app.jobs.events import record
from app.jobs.metric_points import MetricsQuery, list_points
from app.jobs.states import EventType
from app.store.session import Store
from tests.rows import make_job

pytestmark = pytest.mark.anyio


async def test_points_are_the_latest_or_those_past_a_step_and_of_one_curve_if_asked(store: Store) -> None:
    async with store.begin() as session:
        job = await make_job(session)
        for step in range(1, 6):
            figures = {"step": step, "epoch": step / 5, "train_loss": 1 / step, "learning_rate": 0.1}
            await record(session, job.id, EventType.PROGRESS, "", data=figures)
        await record(session, job.id, EventType.VALIDATION, "", data={"step": 5, "valid_loss": 0.5})

        async def steps(**query: object) -> list[tuple[str, int]]:
            found = await list_points(session, job, MetricsQuery.model_validate(query))
            return [(point.name, point.step) for point in found]

        assert await steps(name="train.loss", limit=2) == [("train.loss", 4), ("train.loss", 5)]
        assert await steps(name="train.loss", after_step=1, limit=2) == [("train.loss", 2), ("train.loss", 3)]
        assert await steps(name="val.loss") == [("val.loss", 5)]
        assert await steps(name="no.such") == []
        assert len(await steps()) == 11
