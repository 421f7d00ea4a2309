"""uvicorn's HTTP protocol, which takes chat completions the short way where it can."""

from dataclasses import dataclass
from typing import Any, cast

from starlette.datastructures import State
from starlette.types import Scope
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.http_reply import Reply
from app.inference.passage import Passage
from app.inference.short_way import begin_at_once, known_key
from app.orgs.keys import CurrentKey


@dataclass(slots=True)
class _Held:
    """A chat completion that the application has not been told of; under way once it has a passage."""

    cycle: RequestResponseCycle
    app: ASGI3Application
    key: CurrentKey
    passage: Passage | None = None


class ChatProtocol(HttpToolsProtocol):
    """Keeps a chat completion from the application until its body is here, and altogether if it can be begun at once.

    Everything else is uvicorn's. Subclass it with `paths` and the application's `state`.
    """

    paths: frozenset[str]
    state: State

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held: _Held | None = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._held = self._hold(cycle, app)
        if self._held is None:
            super()._start_asgi_task(cycle, app)

    def _hold(self, cycle: RequestResponseCycle, app: ASGI3Application) -> _Held | None:
        """None for all but a chat completion by a known key, whose body the client is sending of itself."""
        scope = cast(Scope, cycle.scope)
        is_chat = scope["path"] in self.paths and scope["method"] == "POST" and scope["http_version"] == "1.1"
        if not is_chat or cycle.waiting_for_100_continue or not cycle.more_body:
            return None
        if self.flow.write_paused:  # by an answer before: only who waits may write more
            return None
        key = known_key(self.state, scope)
        return _Held(cycle, app, key) if key else None

    def _let_go(self) -> None:
        if self._held:
            held, self._held = self._held, None
            super()._start_asgi_task(held.cycle, held.app)

    def _waiting(self) -> _Held | None:
        """The request that is held and being read. A client may have sent the next one already, which is not."""
        held = self._held
        return held if held and held.cycle is self.cycle and held.passage is None else None

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if self.flow.read_paused and self._waiting():  # a large one, which the application reads piece by piece
            self._let_go()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if (held := self._waiting()) is None:
            return
        cycle, scope = held.cycle, cast(Scope, held.cycle.scope)
        held.passage = begin_at_once(self.state, scope, held.key, bytes(cycle.body), Reply(cycle), self._let_go)
        if held.passage is None:
            self._let_go()

    def on_response_complete(self) -> None:
        self._held = None
        super().on_response_complete()

    # what happens meanwhile

    def shutdown(self) -> None:
        """uvicorn cancels the tasks that are left after the grace; a passage is none, and goes with its connection."""
        super().shutdown()
        if self._held:
            self.loop.call_later(self.config.timeout_graceful_shutdown or 0, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        held, self._held = self._held, None
        if held and held.passage:
            held.passage.on_client_gone()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._held and self._held.passage:
            self._held.passage.on_client_slow()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._held and self._held.passage:
            self._held.passage.on_client_ready()
