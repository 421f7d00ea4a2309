"""Half as many rows at once, where that leaves the step as it is."""

from typing import Any

import pytest

from workers.sparing import KILLED, halved, told


@pytest.mark.parametrize(
    ("rows", "times", "attempt", "becomes"),
    [
        (8, 1, 1, (4, 2)),
        (2, 3, 1, (1, 6)),
        (3, 1, 1, (1, 3)),
        (5, 4, 1, (2, 10)),
        (9, 1, 1, (3, 3)),
        (8, 1, 2, None),
        (1, 4, 1, None),
    ],
)
def test_a_step_has_the_same_rows_and_is_halved_at_the_first_attempt_only(
    rows: int, times: int, attempt: int, becomes: tuple[int, int] | None
) -> None:
    given: dict[str, Any] = {"batch_size": rows, "gradient_accumulation_steps": times, "n_epochs": 3}
    smaller = halved(given, attempt=attempt)
    if becomes is None:
        assert smaller is None
        return
    assert smaller == {"batch_size": becomes[0], "gradient_accumulation_steps": becomes[1], "n_epochs": 3}
    assert f"{becomes[0]} rows at once and {becomes[1]} times a step" in told(smaller, KILLED).message
