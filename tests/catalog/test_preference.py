"""The four ways of asking for a GPU."""

from typing import Any
from urllib.parse import urlencode

import pytest

from app.catalog.preference import wanted_gpu


@pytest.mark.parametrize(
    ("body", "headers", "query", "wanted"),
    [
        ({}, {}, {}, None),
        ({"gpu_preference": "a"}, {"x-gpu-preference": "b"}, {"gpu": "c"}, "a"),
        ({}, {"x-gpu-preference": "b"}, {"gpu": "c"}, "b"),
        ({"extra_headers": {"X-GPU-PREFERENCE": "d"}}, {}, {"gpu": "c"}, "c"),
        ({"extra_headers": {"X-GPU-PREFERENCE": "d"}}, {}, {}, "d"),
        ({"gpu_preference": " "}, {"x-gpu-preference": ""}, {"gpu": "c"}, "c"),
        (
            {"gpu_preference": "", "extra_headers": {"x-gpu-preference": "d"}},
            {"x-gpu-preference": " "},
            {"gpu": ""},
            "d",
        ),
        ({"gpu_preference": None, "extra_headers": "d"}, {}, {}, None),
        ({"extra_headers": {"X-GPU-Preference": 5}}, {}, {}, "5"),
    ],
)
def test_the_most_telling_way_counts(
    body: dict[str, Any], headers: dict[str, str], query: dict[str, str], wanted: str | None
) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert wanted_gpu({"headers": raw, "query_string": urlencode(query).encode()}, body) == wanted
