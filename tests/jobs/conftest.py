"""Servers that train in no time, and one whose training stops half-way until it is begun again.

They look twenty times a second, also when nobody asks them: they end with the tests of jobs.
"""

from collections.abc import AsyncIterator, Iterator

import pytest
from httpx import AsyncClient

from tests.servers import Server, running_server

QUICK = {
    "LOAM_POLL_SECONDS": "0.05",
    "LOAM_SIMULATE_TRAINING_SECONDS": "0.2",
    "LOAM_CHECKPOINT_EVERY_STEPS": "5",
}
HANGING = {
    **QUICK,
    "LOAM_SIMULATE_TRAINING_FAULTS": '["hang_at_step:5"]',
    "LOAM_LEASE_SECONDS": "2",
    "LOAM_SHUTDOWN_GRACE_SECONDS": "1",
}


@pytest.fixture(scope="package")
def quick_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("quick"), "--simulate", **QUICK) as server:
        yield server


@pytest.fixture
async def quick(quick_server: Server) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(base_url=quick_server.url, headers=quick_server.new_org().headers, timeout=30) as client:
        yield client


@pytest.fixture(scope="package")
def hanging_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A training writes its checkpoint of step 5 and hangs there; one that goes on from step 5 ends well."""
    with running_server(tmp_path_factory.mktemp("hanging"), "--simulate", **HANGING) as server:
        yield server


@pytest.fixture
async def hanging(hanging_server: Server) -> AsyncIterator[AsyncClient]:
    headers = hanging_server.new_org().headers
    async with AsyncClient(base_url=hanging_server.url, headers=headers, timeout=30) as client:
        yield client
