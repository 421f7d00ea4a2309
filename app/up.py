"""`loam up` and `loam serve`: uvicorn, a worker beside it, and what a first start says."""

import asyncio
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import structlog
import uvicorn
import uvloop
from fastapi import FastAPI
from rich.console import Console

from app.admin.keys import create_key
from app.admin.organisations import create_org
from app.catalog.load import load_catalog
from app.engines.orphans import kill_own
from app.errors import APIError, Foreseen
from app.files.storage import Storage
from app.logs import configure_logging
from app.main import create_app, finish, protocol_of
from app.orgs.audit import Actor
from app.orgs.service import list_orgs
from app.processes import end_group, spawn
from app.settings import Settings
from app.socket_protocol import SocketProtocol
from app.store.migrate import migrate
from app.store.session import Store

log = structlog.get_logger()

RESTART_SECONDS = 1.0
NOTICE_SECONDS = 0.5  # for a load balancer to see, before the port closes, that we are about to stop
MAX_SOCKET_PATH_BYTES = 107  # of sockaddr_un


class CannotStart(Foreseen):
    """The message tells what to do about it."""


def run_up(settings: Settings, *, with_worker: bool) -> int:
    """Until SIGTERM or Ctrl-C; the exit status. Raises CannotStart, WrongCatalog."""
    configure_logging(settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_up(settings, with_worker))


async def _up(settings: Settings, with_worker: bool) -> int:
    check_socket_paths(settings)
    app = create_app(settings)
    listener = _listen(settings)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    server = Server(settings, app, await _first_key(settings))
    gc.collect()
    gc.freeze()  # what has been imported stays: to look through it again and again takes long, and all wait
    worker = asyncio.create_task(_keep_worker(settings, server.forced)) if with_worker else None
    try:
        await server.serve(sockets=[listener])
    finally:
        if worker:
            worker.cancel()
            with suppress(asyncio.CancelledError):
                await worker
        if server.force_exit:
            kill_own(Storage(settings.data_dir).engines)  # nobody has ended them
            sys.stdout.flush()
            os._exit(0)  # at once: a tidy end may take long, and the next gateway finds its way as after a kill
    return 0 if server.started else 1


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        other = f"loam up --port {settings.port + 1}"
        raise CannotStart(f"{settings.host}:{settings.port} cannot be used ({error.strerror}). Try: {other}") from error
    # asyncio switches Nagle's algorithm off only where it knows that this is TCP, which `create_server` does not say:
    # without it the second part of an answer waits 40 ms for a client that acknowledges late.
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=listener.detach())


def check_socket_paths(settings: Settings) -> None:
    """Raises CannotStart."""
    longest = Storage.engines_of(settings.data_dir.resolve()) / f"{'x' * 12}.sock"
    excess = len(os.fsencode(longest)) - MAX_SOCKET_PATH_BYTES
    if excess > 0:
        raise CannotStart(
            f"LOAM_DATA_DIR is {excess} bytes too long for the sockets of its engines, whose paths may have "
            f"{MAX_SOCKET_PATH_BYTES} bytes: {settings.data_dir.resolve()}. Name a shorter one, or a link to it."
        )


async def _first_key(settings: Settings) -> str | None:
    """On the very first start: the organisation `default` with credit, and its key."""
    store = Store(settings.store_url)
    try:
        await migrate(store)
        async with store.begin() as session:
            if await list_orgs(session):
                return None
            actor = Actor.at_terminal()
            org = await create_org(session, actor, settings, "default", {})
            _, key = await create_key(session, actor, load_catalog(settings.catalog), org, {"name": "first"})
            return key
    except APIError:  # another gateway was quicker
        return None
    finally:
        await store.close()


async def _keep_worker(settings: Settings, forced: asyncio.Event) -> None:
    """A worker, and another one whenever it dies; ended with us, and at once when we are forced to."""
    while True:
        process = await spawn([sys.executable, "-m", "workers.worker"], env=settings.as_environment())
        try:
            status = await process.wait()
        finally:
            await _end_worker(process, forced, grace_seconds=settings.shutdown_grace_seconds)
        log.error("the worker died; starting another", status=status)
        await asyncio.sleep(RESTART_SECONDS)


async def _end_worker(process: asyncio.subprocess.Process, forced: asyncio.Event, *, grace_seconds: float) -> None:
    """Its job goes on from the last checkpoint where there was no time for another."""
    ending = asyncio.create_task(end_group(process, grace_seconds=grace_seconds))
    forcing = asyncio.create_task(forced.wait())
    await asyncio.wait([ending, forcing], return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()  # which ends it without a grace
    forcing.cancel()
    await asyncio.gather(ending, forcing, return_exceptions=True)


class Server(uvicorn.Server):
    """uvicorn, but it says when it is up, and a signal ends it with status 0: the port stays open while what runs ends,
    and tells who comes that they should try again. A second signal ends it at once.
    """

    def __init__(self, settings: Settings, app: FastAPI, first_key: str | None) -> None:
        config = uvicorn.Config(
            app,
            http=protocol_of(app),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nothing is decided on what a client says of itself
            timeout_keep_alive=75,
            timeout_graceful_shutdown=int(settings.shutdown_grace_seconds),
            ws=SocketProtocol,
            ws_max_size=settings.max_body_bytes,
            ws_per_message_deflate=False,  # as with bodies: nobody knows the size of what is compressed
        )
        super().__init__(config)
        self.forced = asyncio.Event()
        self._app = app
        self._finishing: asyncio.Task[None] | None = None
        self._settings = settings
        self._first_key = first_key

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            announce(self._settings, self._first_key)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.started and self._finishing is None:
            self._finishing = asyncio.get_running_loop().create_task(self._finish())
        else:
            self.force_exit, self.should_exit = self.started, True
            self.forced.set()

    async def _finish(self) -> None:
        began = time.monotonic()
        try:
            await asyncio.gather(finish(self._app), asyncio.sleep(NOTICE_SECONDS))
        finally:
            left = self._settings.shutdown_grace_seconds - (time.monotonic() - began)
            self.config.timeout_graceful_shutdown = max(1, round(left))
            self.should_exit = True


def announce(settings: Settings, first_key: str | None) -> None:
    """Where it is, and on the first start the key that is never shown again."""
    console = Console(soft_wrap=True, highlight=False)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{settings.port}"
    simulated = " [yellow](simulated engines)[/yellow]" if settings.simulate else ""
    console.print(f"[bold]Loam[/bold] is up on [bold]{url}[/bold]{simulated}; the API is described at {url}/docs")
    if first_key is None:
        console.print("A key for it: loam keys create --org default")
        return
    body = '{"model": "loam/demo", "messages": [{"role": "user", "content": "What is the capital of France?"}]}'
    console.print("\nThe key of the organisation 'default', shown only this once:\n")
    console.print(f"  {first_key}\n", style="bold green")
    console.print("Try it:\n")
    console.print(
        f"curl {url}/v1/chat/completions -H 'Authorization: Bearer {first_key}' "
        f"-H 'Content-Type: application/json' -d '{body}'\n",
        markup=False,
    )
