"""What the tests share: stores on both databases, organisations, and running servers."""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from httpx import AsyncClient
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from app.store.session import Store
from tests.real.corrupt import catalog_with_corrupt
from tests.real.engines import LEASE_SECONDS
from tests.servers import Server, TestOrg, running_server
from tests.stores import PostgresStores, SqliteStores

REAL = re.compile("(?<![a-z])real(?![a-z])")


class Rows(LoadScopeScheduling):  # type: ignore[misc]
    """What goes beside what under `-n`: files, but all on the real server in one row, so that there is one."""

    def _split_scope(self, nodeid: str) -> str:
        return "real" if REAL.search(nodeid) else nodeid.partition("::")[0]


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Rows:
    return Rows(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest row begins."""
    items.sort(key=lambda item: not REAL.search(item.nodeid))


@pytest.fixture(scope="session", autouse=True)
def plain_tracebacks() -> None:
    """structlog draws them with all that the variables hold, for seconds each."""
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def sqlite_stores(tmp_path_factory: pytest.TempPathFactory) -> SqliteStores:
    return SqliteStores(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(scope="session")
def postgres_stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresStores]:
    with PostgresStores.running(tmp_path_factory.mktemp("postgres")) as stores:
        yield stores


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str:
    """A store of the test's own, on each database, built by the migrations."""
    stores: SqliteStores | PostgresStores = request.getfixturevalue(f"{request.param}_stores")
    return stores.new_url()


@pytest.fixture
def restartable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A PostgreSQL of the test's own: its folder, and the URL of a store on it."""
    folder = tmp_path_factory.mktemp("restartable")
    with PostgresStores.running(folder) as stores:
        yield folder, stores.new_url()


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    store = Store(store_url)
    yield store
    await store.close()


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running `loam up --simulate`, shared: each test makes an organisation of its own."""
    quick = {"LOAM_SIMULATE_TRAINING_SECONDS": "0.5"}
    with running_server(tmp_path_factory.mktemp("simulated"), "--simulate", **quick) as server:
        yield server


@pytest.fixture
async def client(simulated: Server) -> AsyncIterator[AsyncClient]:
    """A client of the simulated server, with the key of a new organisation."""
    async with AsyncClient(base_url=simulated.url, headers=simulated.new_org().headers, timeout=30) as client:
        yield client


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running `loam up` with the real engine and real training, on the demo model, and with a corrupt one."""
    quick = {"LOAM_LEASE_SECONDS": str(LEASE_SECONDS), "LOAM_CHECKPOINT_EVERY_STEPS": "10"}
    catalog = catalog_with_corrupt(tmp_path_factory.mktemp("catalog"))
    with running_server(tmp_path_factory.mktemp("real"), LOAM_CATALOG=str(catalog), **quick) as server:
        yield server


@pytest.fixture(scope="session")
def real_org(real: Server) -> TestOrg:
    return real.new_org()


@pytest.fixture(scope="session")
def training_file() -> Path:
    """Ten good rows."""
    return Path(__file__).parent / "data" / "ten_rows.jsonl"
