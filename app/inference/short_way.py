"""The short way of a chat completion: below ASGI and without a task, when nothing about it has to be waited for."""

from collections.abc import Callable

from starlette.datastructures import State
from starlette.types import Scope

from app.engines.client import chat_request
from app.ids import new_id
from app.inference.admission import header_of, parse_json, relay_for, wanted_gpu
from app.inference.bounds import check_takes_tools
from app.inference.chat import parse
from app.inference.chat_answer import chat_answer
from app.inference.passage import Outlet, Passage
from app.orgs.allowed_models import require_model
from app.orgs.auth import bearer_token
from app.orgs.keys import CurrentKey
from app.orgs.roles import ASKERS
from app.request_id import marks


def known_key(state: State, scope: Scope) -> CurrentKey | None:
    """Who asks, if that is known without looking it up, and may ask models. `state`: the application's."""
    token = bearer_token(scope)
    key: CurrentKey | None = state.key_ring.find_known(token) if token else None
    return key if key and key.role in ASKERS else None


def begin_at_once(
    state: State, scope: Scope, key: CurrentKey, raw: bytes, outlet: Outlet, otherwise: Callable[[], None]
) -> Passage | None:
    """A passage under way; None where anything is amiss or not at hand: funds, the model, a warm engine.

    Whoever gets None lets the application answer, which looks again, waits, and says what is wrong. So does
    `otherwise`, called when the engine hung up before it had heard the request.
    """
    try:
        return _begin(state, scope, key, raw, outlet, otherwise)
    except Exception:  # noqa: BLE001 - a bug too is the application's to tell, which will find it again
        return None


def _begin(
    state: State, scope: Scope, key: CurrentKey, raw: bytes, outlet: Outlet, otherwise: Callable[[], None]
) -> Passage | None:
    is_encoded = header_of(scope, b"content-encoding") is not None
    is_refused = is_encoded or len(raw) > state.settings.max_body_bytes
    if state.draining or is_refused or scope["query_string"]:
        return None
    body = parse_json(raw)
    asked = parse(body)
    require_model(key, asked.model)
    target = state.admissions.find_known(key.org_id, asked.model, wanted_gpu(scope, body))
    if target is None or not state.budgets.allow_now(key):
        return None
    check_takes_tools(target.model, asked.tools, asked.tool_choice)
    request_id = new_id("req")
    relay = relay_for(state, target, key.org_id, request_id)
    relay.key_id = key.key_id
    if key.is_throttled:
        relay.allowance = state.allowances.find_known(key)
        if relay.allowance is None or not relay.allowance.has_left():
            return None
    headers = marks(request_id, simulated=state.settings.simulate)
    asking = relay.body(asked)
    request, answer = chat_request(asking), chat_answer(asked, target)
    if not relay.hold_now(asking, len(request)):
        return None
    try:
        relay.take_place()
        if leased := state.pool.lease_now(target, body=asking):
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
