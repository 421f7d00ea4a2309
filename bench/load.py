"""The load client: what it is to ask of a server, and what it tells."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from app.processes import signal_group
from bench.compiler import compiled
from bench.processes import cpu_seconds, resident_bytes

OPEN_WITHIN_SECONDS = 30


class LoadFailed(Exception):
    """The load client gave up; the message says why."""


@dataclass(frozen=True)
class Target:
    """A server to ask, on a port or on a Unix socket, and the processes whose CPU time counts."""

    model: str
    port: int | None = None
    uds: Path | None = None
    headers: tuple[str, ...] = ()
    pids: tuple[int, ...] = ()

    @property
    def flags(self) -> list[str]:
        place = ["--port", str(self.port)] if self.uds is None else ["--uds", str(self.uds)]
        return ["--model", self.model, *place, *(part for line in self.headers for part in ("--header", line))]


@dataclass(frozen=True)
class Asking:
    """What each of `connections` asks, again and again: `answers` times, or for a time."""

    connections: int
    tokens: int
    stream: bool = False
    pace_us: int | None = None
    stamped: bool = False
    prompt_bytes: int = 1000
    extra: str = ""
    answers: int | None = None

    @property
    def flags(self) -> list[str]:
        return [
            *("--connections", str(self.connections)),
            *("--tokens", str(self.tokens)),
            *("--prompt-bytes", str(self.prompt_bytes)),
            *(["--stream"] if self.stream else []),
            *(["--stamped"] if self.stamped and self.stream else []),
            *(["--pace-us", str(self.pace_us)] if self.pace_us is not None else []),
            *(["--extra", self.extra] if self.extra else []),
            *(["--answers", str(self.answers)] if self.answers else []),
        ]


class Quantiles(BaseModel):
    """Of durations in microseconds."""

    count: int
    mean: float
    p50: float
    p99: float
    max: float


class Errors(BaseModel):
    status: int
    incomplete: int
    wrong: int
    connection: int
    first: str

    @property
    def count(self) -> int:
        return self.status + self.incomplete + self.wrong + self.connection


class Load(BaseModel):
    """One measurement, as the client tells it. Events are chunks of a stream; tokens those of complete answers.

    `begun`: streams that had had their first chunk when the measuring began.
    """

    seconds: float
    begun: int
    requests: int
    tokens: int
    events: int
    latency_us: Quantiles | None
    first_chunk_us: Quantiles | None
    chunk_delay_us: Quantiles | None
    client_cpu_seconds: float
    errors: Errors


@dataclass(frozen=True)
class Run:
    """A measurement and the CPU time that the server took for it."""

    asking: Asking
    load: Load
    cpu_seconds: float


@dataclass(frozen=True)
class Held:
    """Memory of a server, at rest and with streams open."""

    streams: int
    bytes_before: int
    bytes_with: int


async def measure(target: Target, asking: Asking, *, seconds: float, warmup_seconds: float) -> Run:
    """The seconds are for who asks for a time, and not for a number of answers. Raises LoadFailed."""
    times = () if asking.answers else ("--seconds", str(seconds), "--warmup-seconds", str(warmup_seconds))
    async with _client([*target.flags, *asking.flags, *times]) as client:
        await _line(client, "measuring")
        began, cpu = time.monotonic(), cpu_seconds(target.pids)
        load = parse(await _line(client))
        # We may hear of the end a little late, when the server has begun to rest: its share of the time is what counts.
        share = (cpu_seconds(target.pids) - cpu) / (time.monotonic() - began)
    return Run(asking, load, share * load.seconds)


async def hold(target: Target, asking: Asking) -> Held:
    """Memory before and while every connection has a stream open. Raises LoadFailed."""
    before = resident_bytes(target.pids)
    async with _client([*target.flags, *asking.flags, "--hold"]) as client:
        try:
            async with asyncio.timeout(OPEN_WITHIN_SECONDS):
                await _line(client, "open")
        except TimeoutError as error:
            message = f"{asking.connections} streams were not open within {OPEN_WITHIN_SECONDS} s"
            raise LoadFailed(message) from error
        return Held(asking.connections, before, resident_bytes(target.pids))


def parse(line: str) -> Load:
    """Raises LoadFailed."""
    try:
        return Load.model_validate_json(line)
    except ValidationError as error:
        raise LoadFailed(f"the load client said {line[:200]!r}") from error


@asynccontextmanager
async def _client(flags: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    argv = [str(compiled("sseload")), *flags]
    client = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe, start_new_session=True)
    try:
        yield client
    finally:
        signal_group(client.pid, signal.SIGTERM)
        await client.communicate()


async def _line(client: asyncio.subprocess.Process, expected: str | None = None) -> str:
    assert client.stdout
    assert client.stderr
    line = (await client.stdout.readline()).decode().strip()
    if not line or (expected and line != expected):
        raise LoadFailed(line or (await client.stderr.read()).decode().strip() or "the load client died")
    return line
