"""The short way of a chat completion, asked of a whole application: what has to be looked up, and what is not begun."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
import structlog
from starlette.datastructures import State

from app.billing.funds import Funds
from app.billing.ledger import Entry, append
from app.inference.passage import Headers, Passage
from app.inference.short_way import Asker
from app.main import create_app
from app.settings import Settings
from tests.asking import CHAT, MODEL, chat_body
from tests.rows import make_key, make_org

pytestmark = pytest.mark.anyio

CREDIT = 1_000_000
BODY = orjson.dumps(chat_body(max_tokens=16))


class Answer:
    """An outlet for one answer."""

    has_begun = False

    def __init__(self) -> None:
        self.status = asyncio.get_running_loop().create_future()

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        self.status.set_result(status)

    def begin(self, status: int, headers: Headers) -> None:
        raise AssertionError("it was to be whole")

    def write(self, data: bytes) -> None:
        raise AssertionError("it was to be whole")

    def end(self, data: bytes) -> None:
        raise AssertionError("it was to be whole")

    def cut(self) -> None:
        raise AssertionError("nobody was slow")


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[State]:
    """Of an application that nobody has asked anything yet."""
    app = create_app(Settings(data_dir=tmp_path, simulate=True))
    async with app.router.lifespan_context(app):
        yield app.state


async def new_asker(state: State, credit_micros: int = CREDIT) -> tuple[str, Asker]:
    """An organisation, and who asks by its key."""
    async with state.store.begin() as session:
        org = await make_org(session)
        await append(
            session, Entry(org_id=org.id, source=f"credit:{org.id}", kind="credit", amount_micros=credit_micros)
        )
        key = await make_key(session, org)
    return org.id, asker_of(state, key)


def asker_of(state: State, key: str) -> Asker:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: loam\r\nAuthorization: Bearer {key}\r\nContent-Length: \r\n\r\n"
    asker: Asker | None = state.short_way.find_asker(head.encode(), {CHAT})
    assert asker
    return asker


async def warm_up(state: State, org_id: str) -> None:
    async with state.pool.lease(await state.admissions.admit(org_id, MODEL, None)):
        pass


def give_up() -> None:
    raise AssertionError("the engine is there")


async def begin(state: State, asker: Asker, *, waits: bool) -> tuple[Passage | None, Answer]:
    answer = Answer()
    if waits:
        return await state.short_way.begin_when_known(asker, BODY, answer, give_up), answer
    return state.short_way.begin(asker, BODY, answer, give_up), answer


async def test_who_is_new_is_looked_up_and_goes_the_short_way_with_the_first_request(state: State) -> None:
    await warm_up(state, (await new_asker(state))[0])
    _, asker = await new_asker(state)
    assert (await begin(state, asker, waits=False))[0] is None
    passage, answer = await begin(state, asker, waits=True)
    assert passage
    assert await answer.status == 200


async def test_many_who_come_at_once_go_the_short_way_all_together(state: State) -> None:
    await warm_up(state, (await new_asker(state))[0])
    _, asker = await new_asker(state, credit_micros=1_000 * CREDIT)
    begun = await asyncio.gather(*(begin(state, asker, waits=True) for _ in range(100)))
    assert all(passage for passage, _ in begun)
    assert await asyncio.gather(*(answer.status for _, answer in begun)) == [200] * 100


async def test_what_is_left_to_the_application_holds_no_money(state: State) -> None:
    org_id, asker = await new_asker(state)
    assert (await begin(state, asker, waits=True))[0] is None  # no engine is there
    await warm_up(state, org_id)
    stranger = asker_of(state, "sk-loam-nobody")
    _, poor = await new_asker(state, credit_micros=1)
    for who in (stranger, poor):
        assert (await begin(state, who, waits=True))[0] is None

    assert (await state.charges.funds.hold(org_id, CREDIT)).micros == CREDIT


async def test_money_that_others_hold_is_waited_for_by_the_application_alone(state: State) -> None:
    await warm_up(state, (await new_asker(state))[0])
    org_id, asker = await new_asker(state)
    await Funds(state.store, lease_seconds=15).hold(org_id, CREDIT)
    async with asyncio.timeout(1):
        assert (await begin(state, asker, waits=True))[0] is None


async def test_what_fails_once_an_engine_is_leased_gives_it_back(state: State) -> None:
    org_id, asker = await new_asker(state)
    await warm_up(state, org_id)
    state.settings.log_prompts = True
    processors = structlog.get_config()["processors"]
    structlog.configure(processors=[full_disk])
    try:
        assert (await begin(state, asker, waits=True))[0] is None
    finally:
        structlog.configure(processors=processors)
    assert [engine.in_flight for engine in state.pool.engines] == [0]
    passage, answer = await begin(state, asker, waits=True)
    assert passage
    assert await answer.status == 200


def full_disk(logger: object, method: str, event: object) -> str:
    raise OSError("no space left for a log")
