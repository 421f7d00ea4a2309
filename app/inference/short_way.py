"""The short way of a chat completion: below ASGI, and without a task when nothing about it has to be waited for."""

from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import State
from starlette.types import Scope

from app.catalog.preference import wanted_gpu
from app.catalog.resolve import Target
from app.engines.client import chat_request
from app.ids import new_id
from app.inference.admission import parse_json, relay_for
from app.inference.bounds import check_takes_tools
from app.inference.chat import parse
from app.inference.chat_answer import ChatAnswer, chat_answer
from app.inference.chat_request import ChatRequest
from app.inference.passage import Outlet, Passage
from app.inference.plain_head import read_head
from app.inference.relay import Relay
from app.orgs.allowances import Allowance
from app.orgs.allowed_models import require_model
from app.orgs.auth import bearer_token
from app.orgs.keys import CurrentKey, hash_key
from app.orgs.roles import ASKERS
from app.request_id import marks


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks by the heads of one outline. `scope`: as much of an ASGI one as they say."""

    outline: bytes
    token: str
    key_hash: str
    scope: Scope


class ShortWay:
    """Begins passages. `state`: the application's, once all of it is there."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._settings = state.settings
        self._key_ring = state.key_ring
        self._admissions = state.admissions
        self._budgets = state.budgets
        self._allowances = state.allowances
        self._pool = state.pool

    def find_asker(self, outline: bytes, paths: Set[str]) -> Asker | None:
        """None for a head that is not plain, or of anything but a chat completion."""
        head = read_head(outline)
        scope: Scope = {"headers": head.headers if head else [], "query_string": b""}
        token = bearer_token(scope)
        if head is None or token is None or head.path not in paths:
            return None
        return Asker(outline, token, hash_key(token), scope)

    def find_key(self, asker: Asker) -> CurrentKey | None:
        """Whose it is, if that is known without looking it up, and may ask models."""
        key: CurrentKey | None = self._key_ring.find_known(asker.key_hash)
        return key if key and key.role in ASKERS else None

    def begin(self, asker: Asker, raw: bytes, outlet: Outlet, otherwise: Callable[[], None]) -> Passage | None:
        """A passage under way; None where anything is amiss or not at hand: funds, the model, a warm engine.

        Whoever gets None tries `begin_when_known`. `otherwise` is called when the engine hung up before it had heard
        the request.
        """
        try:
            asking = self._find(asker, raw)
            return self._start(asking, outlet, otherwise) if asking and asking.hold_now() else None
        except Exception:  # noqa: BLE001 - a bug too is the application's to tell, which will find it again
            return None

    async def begin_when_known(
        self, asker: Asker, raw: bytes, outlet: Outlet, otherwise: Callable[[], None]
    ) -> Passage | None:
        """The same, once what the store has to be asked for is known. An engine is not waited for.

        Whoever gets None lets the application answer, which looks again, waits, and says what is wrong.
        """
        try:
            asking = await self._look_up(asker, raw)
            if asking is None:
                return None
            await asking.hold()
            return self._start(asking, outlet, otherwise)
        except Exception:  # noqa: BLE001
            return None

    def _find(self, asker: Asker, raw: bytes) -> "_Asking | None":
        key = self.find_key(asker)
        if key is None or not self._budgets.allow_now(key):
            return None
        body, asked = self._read(key, raw)
        target = self._admissions.find_known(key.org_id, asked.model, wanted_gpu(asker.scope, body))
        allowance = self._allowances.find_known(key) if key.is_throttled else None
        if target is None or (key.is_throttled and allowance is None):
            return None
        return self._prepare(key, asked, target, allowance)

    async def _look_up(self, asker: Asker, raw: bytes) -> "_Asking | None":
        key = await self._key_ring.authenticate(asker.token)
        if key is None or key.role not in ASKERS:
            return None
        body, asked = self._read(key, raw)
        await self._budgets.require(key)
        allowance = await self._allowances.of(key) if key.is_throttled else None
        target = await self._admissions.look_up(key.org_id, asked.model, wanted_gpu(asker.scope, body))
        return self._prepare(key, asked, target, allowance)

    def _read(self, key: CurrentKey, raw: bytes) -> tuple[dict[str, Any], ChatRequest]:
        """Raises BadRequest, ModelNotAllowed."""
        body = parse_json(raw)
        asked = parse(body)
        require_model(key, asked.model)
        return body, asked

    def _prepare(
        self, key: CurrentKey, asked: ChatRequest, target: Target, allowance: Allowance | None
    ) -> "_Asking | None":
        if self._state.draining:
            return None
        check_takes_tools(target.model, asked.tools, asked.tool_choice)
        relay = relay_for(self._state, target, key.org_id, new_id("req"))
        relay.key_id = key.key_id
        relay.allowance = allowance
        body = relay.body(asked)
        return _Asking(relay, body, chat_request(body), chat_answer(asked, target), asked.streams)

    def _start(self, asking: "_Asking", outlet: Outlet, otherwise: Callable[[], None]) -> Passage | None:
        """Of one that has its funds, which are let go unless it gets under way."""
        relay, leased = asking.relay, None
        try:
            if relay.allowance:
                relay.allowance.require()
            relay.take_place()
            if leased := self._pool.lease_now(relay.target, body=asking.body):
                headers = marks(relay.request_id, simulated=self._settings.simulate)
                if relay.allowance:
                    relay.allowance.take()
                    headers += relay.allowance.headers()
                relay.note(asking.body)
                passage = Passage(relay, leased, asking.answer, streams=asking.streams)
                passage.begin(asking.request, outlet, headers, otherwise)
                return passage
        except BaseException:
            if leased:
                leased.release()
            relay.let_go()
            raise
        relay.let_go()
        return None


@dataclass(slots=True)
class _Asking:
    """What is sent to the engine, as a body and as it goes over the wire, and what becomes of its answer."""

    relay: Relay
    body: dict[str, Any]
    request: bytes
    answer: ChatAnswer
    streams: bool

    def hold_now(self) -> bool:
        return self.relay.hold_now(self.body, len(self.request))

    async def hold(self) -> None:
        await self.relay.hold_soon(self.body, len(self.request))
