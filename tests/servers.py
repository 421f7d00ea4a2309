"""Running servers for tests: `loam up` or `loam serve` as users start it, in a process of its own."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx

from app.admin.organisations import welcome_credit
from app.billing.ledger import append
from app.orgs.service import create_org
from app.settings import Settings
from app.store.session import Store
from tests.command import loam
from tests.rows import make_key

START_SECONDS = 60


@dataclass(frozen=True)
class TestOrg:
    """An organisation and a key of it."""

    __test__ = False

    name: str
    id: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


@dataclass
class Server:
    """The process of a gateway."""

    data_dir: Path
    port: int
    process: subprocess.Popen[bytes]
    env: dict[str, str]
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.data_dir / "server.log").read_text(errors="replace")

    def loam(self, *arguments: str) -> str:
        """A `loam` command on the server's data; what it prints."""
        done = loam(self.env, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def new_org(self) -> TestOrg:
        """As `loam orgs create` and `loam keys create` make them, but without two starts of Python."""
        making = self._new_org(f"org-{next(self._numbers)}")
        with ThreadPoolExecutor(1) as thread:  # the test may be running a loop of its own
            return thread.submit(asyncio.run, making).result()

    async def _new_org(self, name: str) -> TestOrg:
        settings = Settings(data_dir=self.data_dir)
        store = Store(self.env.get("LOAM_DATABASE_URL", settings.store_url))
        async with store.begin() as session:
            org = await create_org(session, name)
            await append(session, welcome_credit(settings, org.id))
            key = await make_key(session, org)
        await store.close()
        return TestOrg(name, org.id, key)

    def stop(self, number: signal.Signals = signal.SIGTERM, *, timeout: float = 60) -> int:
        """Signal the server and wait for it; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout)


@contextmanager
def running_server(data_dir: Path, *arguments: str, command: str = "up", **environment: str) -> Iterator[Server]:
    """`command`: `up`, or `serve` where nothing is trained: it starts no worker. `environment`: LOAM_… variables."""
    server = start_server(data_dir, *arguments, command=command, **environment)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


def start_server(data_dir: Path, *arguments: str, command: str = "up", **environment: str) -> Server:
    port = free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LOAM_")}
    env = {**clean, "LOAM_DATA_DIR": str(data_dir), "HF_HUB_OFFLINE": "1", **environment}
    argv = [sys.executable, "-m", "app", command, "--port", str(port), *arguments]
    with (data_dir / "server.log").open("ab") as log:
        process = subprocess.Popen(argv, env=env, stdout=log, stderr=log, cwd=data_dir)
    server = Server(data_dir, port, process, env)
    wait_until_healthy(server)
    return server


def wait_until_healthy(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert server.process.poll() is None, server.log
        try:
            if httpx.get(f"{server.url}/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"not healthy in {START_SECONDS} s:\n{server.log}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
