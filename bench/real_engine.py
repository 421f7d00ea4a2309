"""`python -m bench.real_engine`: through the gateway, beside straight to the very same vLLM over its socket."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from app.settings import ROOT
from bench.compiler import NoCompiler
from bench.figures import CHUNK_RATE, CPU_A_REQUEST, FIRST_CHUNK, Case, Figure
from bench.load import Asking, Run, Target
from bench.machine import SCRATCH, facts
from bench.processes import CannotStart, free_port, running, until_answered
from bench.relay.sides import new_key, until_asked
from bench.report import LOAM, STRAIGHT
from bench.rounds import Results, measure_all
from bench.show import out, publish, telling

MODEL = "loam/demo"
RESULTS = Path(__file__).parent / "results" / "engine.md"
CONNECTIONS = (1, 8, 32)
ASKING = Asking(connections=1, tokens=64, prompt_bytes=200, extra='"ignore_eos":true')
HEAD = """\
# What the gateway takes from a real engine

The demo model on vLLM, asked through Loam and straight over the engine's own socket, in turns in one run: the median of
{rounds} rounds of {seconds:g} s (least..most). Answers of 64 tokens. Requests/s are connections over the mean latency:
the engine ends many at once, so that counting them in so short a time would be right to a whole batch only.
Nothing is pinned: engine, gateway and load share the machine.\
"""


def _rate(run: Run) -> float | None:
    return run.connections * 1e6 / run.load.latency_us.mean if run.load.latency_us else None
