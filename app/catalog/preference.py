"""Which GPU a request asks for: the four ways of asking, most telling first. Pure."""

from collections.abc import Mapping
from typing import Any

HEADER = "x-gpu-preference"


def asked_gpu(body: Mapping[str, Any], headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
    """`gpu_preference` in the body, the header, `gpu` in the query, then the header's name in a literal
    `extra_headers` of the body. None where each of them is missing or blank.
    """
    literal = body.get("extra_headers")
    inner = {str(name).lower(): value for name, value in literal.items()} if isinstance(literal, Mapping) else {}
    ways = (body.get("gpu_preference"), headers.get(HEADER), query.get("gpu"), inner.get(HEADER))
    return next((str(way) for way in ways if way is not None and str(way).strip()), None)
