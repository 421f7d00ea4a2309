"""The measuring: every side in every round, so that what slows the machine slows them all."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.figures import Case
from bench.load import Asking, Held, LoadFailed, Run, Target, hold, measure
from bench.processes import until_quiet


@dataclass
class Results:
    """Runs by case and side, memory by side, and why a side or a part of it is missing.

    `compared`: the sides that Loam is set against. `seconds`: of each measurement, where the case counts no answers.
    """

    sides: list[str]
    compared: list[str]
    cases: list[Case]
    rounds: int
    seconds: float = 0
    runs: dict[tuple[str, str], list[Run]] = field(default_factory=dict)
    held: dict[str, Held] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, case: str, side: str, run: Run) -> None:
        self.runs.setdefault((case, side), []).append(run)

    @property
    def wrong(self) -> dict[str, str]:
        """By side and case: how many answers were not what was asked for, and what the first one was."""
        told = {}
        for (case, side), runs in self.runs.items():
            errors = [run.load.errors for run in runs if run.load.errors.count]
            if errors:
                told[f"{side}, {case}"] = f"{sum(error.count for error in errors)}; the first: {errors[0].first}"
        return told

    @property
    def late(self) -> dict[str, str]:
        """By side and case: where streams had not begun, seconds after they were asked for."""
        told = {}
        for (case, side), runs in self.runs.items():
            begun, wanted = min(run.load.begun for run in runs), runs[0].asking
            if wanted.stream and begun < wanted.connections:
                told[f"{side}, {case}"] = f"only {begun} streams had begun when the measuring did"
        return told


def as_json(results: Results, facts: Mapping[str, str]) -> dict[str, Any]:
    """Every run as it was."""
    runs = [
        {"case": case, "side": side, "cpu_seconds": run.cpu_seconds, **run.load.model_dump()}
        for (case, side), own in results.runs.items()
        for run in own
    ]
    held = {side: asdict(memory) for side, memory in results.held.items()}
    return {"machine": dict(facts), "missing": results.missing, "runs": runs, "held": held}


Tell = Callable[[str], None]


async def measure_all(targets: Mapping[str, Target], results: Results, tell: Tell) -> None:
    """`tell` is called before each measurement."""
    for number in range(1, results.rounds + 1):
        for case in results.cases:
            for side, target in targets.items():
                tell(f"round {number}/{results.rounds} · {case.name} · {side}")
                await _measure_one(case, side, target, results)


async def _measure_one(case: Case, side: str, target: Target, results: Results) -> None:
    try:
        run = await measure(target, case.asking, seconds=results.seconds, warmup_seconds=results.seconds / 3)
        results.add(case.name, side, run)
    except LoadFailed as error:
        results.missing[f"{side}, {case.name}"] = str(error)
    await until_quiet(target.pids)


async def hold_all(targets: Mapping[str, Target], asking: Asking, results: Results, tell: Tell) -> None:
    """Once: memory does not vary as time does."""
    for side, target in targets.items():
        if not target.pids:
            continue
        tell(f"memory with {asking.connections:,} open streams · {side}")
        try:
            results.held[side] = await hold(target, asking)
        except LoadFailed as error:
            results.missing[f"{side}, memory"] = str(error)
        await until_quiet(target.pids)
