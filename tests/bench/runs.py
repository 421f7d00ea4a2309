"""Runs as the load client would have told them."""

from typing import Any

import orjson

from bench.load import Asking, Run, parse

QUANTILES = {"count": 10, "mean": 1000.0, "p50": 900.0, "p99": 2000.0, "max": 2500.0}
NO_ERRORS = {"status": 0, "incomplete": 0, "wrong": 0, "connection": 0, "first": ""}


def line(**changes: Any) -> str:
    """What the client prints."""
    told = {
        "seconds": 2.0,
        "begun": 4,
        "requests": 100,
        "tokens": 1600,
        "events": 0,
        "latency_us": QUANTILES,
        "first_chunk_us": None,
        "chunk_delay_us": None,
        "client_cpu_seconds": 0.5,
        "errors": NO_ERRORS,
    }
    return orjson.dumps({**told, **changes}).decode()


def run(*, cpu_seconds: float = 0.0, asking: Asking | None = None, **changes: Any) -> Run:
    return Run(asking or Asking(connections=4, tokens=16), parse(line(**changes)), cpu_seconds)
