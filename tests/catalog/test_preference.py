"""The four ways of asking for a GPU."""

from typing import Any

import pytest

from app.catalog.preference import asked_gpu


@pytest.mark.parametrize(
    ("body", "headers", "query", "asked"),
    [
        ({}, {}, {}, None),
        ({"gpu_preference": "a"}, {"x-gpu-preference": "b"}, {"gpu": "c"}, "a"),
        ({}, {"x-gpu-preference": "b"}, {"gpu": "c"}, "b"),
        ({"extra_headers": {"X-GPU-PREFERENCE": "d"}}, {}, {"gpu": "c"}, "c"),
        ({"extra_headers": {"X-GPU-PREFERENCE": "d"}}, {}, {}, "d"),
        ({"gpu_preference": " "}, {"x-gpu-preference": ""}, {"gpu": "c"}, "c"),
        ({"gpu_preference": None, "extra_headers": "d"}, {}, {}, None),
        ({"extra_headers": {"X-GPU-Preference": 5}}, {}, {}, "5"),
    ],
)
def test_the_most_telling_way_counts(
    body: dict[str, Any], headers: dict[str, str], query: dict[str, str], asked: str | None
) -> None:
    assert asked_gpu(body, headers, query) == asked
