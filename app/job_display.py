"""A job's events in the terminal: lines of its history, and below them its progress."""

import time
from collections import deque
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from app.jobs.states import EventType
from app.overview import duration
from app.store.tables import JobEvent

LATELY = 30  # steps by which the time left is judged


class Figures:
    """Of the steps told so far. Steps may come again, after a restart."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, int]] = deque(maxlen=LATELY)
        self._data: dict[str, Any] = {}

    def add(self, told_at: float, data: dict[str, Any]) -> None:
        if self._steps and data["step"] <= self._steps[-1][1]:
            self._steps.clear()
        self._steps.append((told_at, data["step"]))
        self._data = data

    @property
    def seconds_left(self) -> float | None:
        """None while it cannot be judged."""
        if len(self._steps) < 2:
            return None
        (began_at, first), (ended_at, last) = self._steps[0], self._steps[-1]
        n_left: int = self._data["total_steps"] - last
        return n_left * (ended_at - began_at) / (last - first)

    def __str__(self) -> str:
        loss, speed = self._data.get("train_loss"), self._data.get("tokens_per_second")
        left = self.seconds_left
        parts = [
            f"loss {loss:.4f}" if loss is not None else None,
            f"{speed:,.0f} tokens/s" if speed is not None else None,
            f"{duration(left)} left" if left is not None else None,
        ]
        return " · ".join(part for part in parts if part)


class JobDisplay:
    """Where nobody looks on (a pipe, a log) every event is a line, and nothing moves."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._figures = Figures()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task("training", total=None, told="")

    def __enter__(self) -> "JobDisplay":
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def show(self, event: JobEvent) -> None:
        if event.event_type == EventType.PROGRESS:
            self._figures.add(event.created_at, event.data)
            step, total = event.data["step"], event.data["total_steps"]
            self._progress.update(self._task, completed=step, total=total, told=str(self._figures))
        if event.type == "message" or not self._console.is_terminal:
            at = time.strftime("%H:%M:%S", time.localtime(event.created_at))
            style = {"warn": "yellow", "error": "red"}.get(event.level)
            self._console.print(f"{at} {event.message}", style=style, markup=False)
