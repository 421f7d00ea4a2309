"""The short way of a chat completion: below ASGI and without a task, when nothing about it has to be waited for."""

from collections.abc import Callable, Set
from dataclasses import dataclass

from starlette.datastructures import State
from starlette.types import Scope

from app.catalog.preference import wanted_gpu
from app.engines.client import chat_request
from app.ids import new_id
from app.inference.admission import parse_json, relay_for
from app.inference.bounds import check_takes_tools
from app.inference.chat import parse
from app.inference.chat_answer import chat_answer
from app.inference.passage import Outlet, Passage
from app.inference.plain_head import read_head
from app.orgs.allowed_models import require_model
from app.orgs.auth import bearer_token
from app.orgs.keys import CurrentKey, hash_key
from app.orgs.roles import ASKERS
from app.request_id import marks


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks by the heads of one outline. `scope`: as much of an ASGI one as they say."""

    outline: bytes
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
        return Asker(outline, hash_key(token), scope)

    def find_key(self, asker: Asker) -> CurrentKey | None:
        """Whose it is, if that is known without looking it up, and may ask models."""
        key: CurrentKey | None = self._key_ring.find_known(asker.key_hash)
        return key if key and key.role in ASKERS else None

    def begin(
        self, asker: Asker, key: CurrentKey, raw: bytes, outlet: Outlet, otherwise: Callable[[], None]
    ) -> Passage | None:
        """A passage under way; None where anything is amiss or not at hand: funds, the model, a warm engine.

        Whoever gets None lets the application answer, which looks again, waits, and says what is wrong. So does
        `otherwise`, called when the engine hung up before it had heard the request.
        """
        try:
            return self._begin(asker, key, raw, outlet, otherwise)
        except Exception:  # noqa: BLE001 - a bug too is the application's to tell, which will find it again
            return None

    def _begin(
        self, asker: Asker, key: CurrentKey, raw: bytes, outlet: Outlet, otherwise: Callable[[], None]
    ) -> Passage | None:
        if self._state.draining or len(raw) > self._settings.max_body_bytes:
            return None
        body = parse_json(raw)
        asked = parse(body)
        require_model(key, asked.model)
        target = self._admissions.find_known(key.org_id, asked.model, wanted_gpu(asker.scope, body))
        if target is None or not self._budgets.allow_now(key):
            return None
        check_takes_tools(target.model, asked.tools, asked.tool_choice)
        request_id = new_id("req")
        relay = relay_for(self._state, target, key.org_id, request_id)
        relay.key_id = key.key_id
        if key.is_throttled:
            relay.allowance = self._allowances.find_known(key)
            if relay.allowance is None or not relay.allowance.has_left():
                return None
        headers = marks(request_id, simulated=self._settings.simulate)
        asking = relay.body(asked)
        request, answer = chat_request(asking), chat_answer(asked, target)
        if not relay.hold_now(asking, len(request)):
            return None
        try:
            relay.take_place()
            if leased := self._pool.lease_now(target, body=asking):
                if relay.allowance:
                    relay.allowance.take()
                    headers += relay.allowance.headers()
                passage = Passage(relay, leased, answer, streams=asked.streams)
                passage.begin(request, outlet, headers, otherwise)
                return passage
        except BaseException:
            relay.let_go()
            raise
        relay.let_go()
        return None
