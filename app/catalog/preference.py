"""Which GPU a request asks for: the four ways of asking, most telling first."""

from collections.abc import Mapping
from typing import Any

from starlette.datastructures import QueryParams
from starlette.types import Scope

from app.headers import header_of

HEADER = "x-gpu-preference"
RAW_HEADER = HEADER.encode()


def wanted_gpu(scope: Scope, body: Mapping[str, Any]) -> str | None:
    """`gpu_preference` in the body, the header, `gpu` in the query, then the header's name in a literal
    `extra_headers` of the body. None where each of them is missing or blank.
    """
    asked = _said(body.get("gpu_preference")) or _said(header_of(scope, RAW_HEADER))
    if not asked and scope["query_string"]:
        asked = _said(QueryParams(scope["query_string"]).get("gpu"))
    if not asked and "extra_headers" in body:
        asked = _said(_in_literal_headers(body["extra_headers"]))
    return asked


def _said(value: Any) -> str | None:
    return None if value is None else str(value).strip() or None


def _in_literal_headers(literal: Any) -> Any:
    inner = {str(name).lower(): value for name, value in literal.items()} if isinstance(literal, Mapping) else {}
    return inner.get(HEADER)
