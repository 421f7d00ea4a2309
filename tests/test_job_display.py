"""What a followed job looks like, to a person and in a log."""

import io
from typing import Any

import pytest
from rich.console import Console

from app.job_display import Figures, JobDisplay
from app.jobs.states import EventType
from app.store.tables import JobEvent

STORY = [
    (EventType.STARTED, "Training started", {}),
    (EventType.PROGRESS, "Step 1/4: training loss=2.5000", {"step": 1, "total_steps": 4, "train_loss": 2.5}),
    (
        EventType.PROGRESS,
        "Step 2/4: training loss=1.2500",
        {"step": 2, "total_steps": 4, "train_loss": 1.25, "tokens_per_second": 1234.4},
    ),
    (EventType.COMPLETED, "The job has [successfully] completed", {}),
]


def events() -> list[JobEvent]:
    return [
        JobEvent(
            created_at=float(10 * position),
            event_type=event_type,
            type="metrics" if data else "message",
            level="info",
            message=message,
            data=data,
        )
        for position, (event_type, message, data) in enumerate(STORY)
    ]


def shown(*, is_terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=120, color_system=None)
    with JobDisplay(console) as display:
        for event in events():
            display.show(event)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_a_person_sees_the_history_and_below_it_how_far_it_is() -> None:
    text = shown(is_terminal=True)
    assert "2/4 loss 1.2500 · 1,234 tokens/s · 20s left" in text
    assert "The job has [successfully] completed" in text
    assert "Step 2/4" not in text


def test_a_log_has_a_line_for_each_event() -> None:
    lines = shown(is_terminal=False).splitlines()
    assert [line[9:] for line in lines] == [message for _, message, _ in STORY]


@pytest.mark.parametrize(
    ("steps", "seconds_left"),
    [
        ([], None),
        ([(0.0, 1)], None),
        ([(0.0, 1), (10.0, 2)], 80.0),
        ([(0.0, 1), (10.0, 5), (12.0, 6)], 9.6),
        ([(0.0, 8), (10.0, 9), (50.0, 4)], None),  # begun again from a checkpoint
        ([(0.0, 8), (10.0, 9), (50.0, 4), (51.0, 5)], 5.0),
        ([(0.0, 9), (10.0, 10)], 0.0),
    ],
)
def test_the_time_left_is_judged_by_the_last_steps(steps: list[tuple[float, int]], seconds_left: Any) -> None:
    figures = Figures()
    for told_at, step in steps:
        figures.add(told_at, {"step": step, "total_steps": 10})
    assert figures.seconds_left == (None if seconds_left is None else pytest.approx(seconds_left))
