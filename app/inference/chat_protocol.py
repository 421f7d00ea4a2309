"""uvicorn's HTTP protocol, which takes chat completions the short way where it can."""

import asyncio
from collections.abc import Coroutine
from typing import Any, ClassVar

from starlette.datastructures import State
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.http_reply import Header, Reply, lines
from app.inference.passage import Passage
from app.inference.plain_head import extent_of
from app.inference.short_way import Asker, ShortWay


class ChatProtocol(HttpToolsProtocol):
    """Keeps a chat completion that is plainly written from uvicorn, unless an engine has to be waited for.

    Everything else is uvicorn's, as if it had read it first. Subclass it with `paths` and the application's `state`.
    """

    paths: frozenset[str]
    state: State
    _defaults: ClassVar[tuple[list[Header], bytes]] = ([], b"")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._way: ShortWay = self.state.short_way
        self._max_body_bytes: int = self.state.settings.max_body_bytes
        self._is_in_message = False  # uvicorn, that is
        self._asker: Asker | None = None  # the last one
        self._unread = b""  # of a request that is not all here, or what a client sent ahead of its answer
        self._request = b""
        self._reply: Reply | None = None
        self._passage: Passage | None = None
        self._looking: asyncio.Task[None] | None = None
        self._stall: asyncio.TimerHandle | None = None

    @property
    def _is_taken(self) -> bool:
        """A request is neither answered nor uvicorn's."""
        return self._passage is not None or self._looking is not None

    # reading

    def data_received(self, data: bytes) -> None:
        if self._unread:
            data = self._unread + data
        if self._is_taken:
            self._hold_back(data)
        elif self._is_uvicorns() or not self._take(data):
            self._unread = b""
            super().data_received(data)

    def on_message_begin(self) -> None:
        self._is_in_message = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._is_in_message = False
        super().on_message_complete()

    def _is_uvicorns(self) -> bool:
        """What comes next, since something before it is."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        return self._is_in_message or is_answering or self.flow.write_paused

    def _hold_back(self, data: bytes) -> None:
        """A client may send its next request before it has its answer, and has it answered after that."""
        self._unread = data
        if len(data) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()

    def _take(self, data: bytes) -> bool:
        """Whether it is a chat completion that has been begun, or may be when all of it is here."""
        extent = extent_of(data)
        if extent is None or extent.whole > HIGH_WATER_LIMIT:
            return False
        if extent.whole - extent.head > self._max_body_bytes:
            return False
        way = self._way
        asker = self._asker
        if asker is None or asker.outline != extent.outline:
            asker = self._asker = way.find_asker(extent.outline, self.paths)
        is_whole = len(data) >= extent.whole
        if asker is None or not (is_whole or way.find_key(asker)):  # nobody unknown is waited for
            return False
        self._unset_keepalive_if_required()
        if not is_whole:
            self._unread = data
            return True
        self._request, self._unread = data[: extent.whole], data[extent.whole :]
        self._reply = Reply(self.transport, self._default_lines(), self._on_end)
        body = data[extent.head : extent.whole]
        self._passage = way.begin(asker, body, self._reply, self._give_up)
        if self._passage is None:
            self._look_up(asker, body, self._reply)
        return True

    def _look_up(self, asker: Asker, body: bytes, reply: Reply) -> None:
        """uvicorn waits for its tasks when it stops."""
        begun = self._way.begin_when_known(asker, body, reply, self._give_up)
        self._looking = self.loop.create_task(self._go_on(begun))
        self.tasks.add(self._looking)
        self._looking.add_done_callback(self.tasks.discard)

    async def _go_on(self, begun: Coroutine[Any, Any, Passage | None]) -> None:
        self._passage = await begun
        self._looking = None
        if self._passage is None:
            self._give_up()

    def _default_lines(self) -> bytes:
        """uvicorn makes them anew each second."""
        headers = self.server_state.default_headers
        known, joined = ChatProtocol._defaults
        if known is not headers:
            joined = b"".join(lines(headers))
            ChatProtocol._defaults = (headers, joined)
        return joined

    # ends

    def _give_up(self) -> None:
        """Nothing was said yet: let the application say it."""
        data, self._unread, self._passage = self._request + self._unread, b"", None
        super().data_received(data)
        if self._reply and not self._reply.keep_alive:
            super().shutdown()

    def _on_end(self) -> None:
        """The rest is uvicorn's, as after an answer of its own."""
        self._passage, self._request = None, b""
        self.on_response_complete()
        if self._unread and not self.transport.is_closing():
            data, self._unread = self._unread, b""
            self.data_received(data)

    # what happens meanwhile

    def shutdown(self) -> None:
        """uvicorn cancels the tasks that are left after the grace; a passage is none, and goes with its connection."""
        if not self._is_taken or self._reply is None:
            super().shutdown()
            return
        self._reply.keep_alive = False
        self.loop.call_later(self.config.timeout_graceful_shutdown or 0, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._end_stall()
        self._unread = b""
        passage, self._passage = self._passage, None
        if passage:
            passage.on_client_gone()
        if self._looking:
            self._looking.cancel()

    def pause_writing(self) -> None:
        """Of whatever is sent: one that takes nothing for as long as an engine may be silent is hung up on."""
        super().pause_writing()
        self._stall = self.loop.call_later(self.state.settings.stream_silence_seconds, self.transport.abort)
        if self._passage:
            self._passage.on_client_slow()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_stall()
        if self._passage:
            self._passage.on_client_ready()

    def _end_stall(self) -> None:
        if self._stall:
            self._stall.cancel()
