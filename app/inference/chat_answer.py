"""What an engine's stream becomes for who asked for a chat completion: a stream of their own, or one whole answer."""

from typing import Any, Protocol

import orjson

from app import sse
from app.billing.prices import Usage
from app.catalog.resolve import Target
from app.inference.chat_request import ChatRequest
from app.inference.chunks import ERROR, ChunkReader, ChunkRewriter
from app.inference.folding import Folding


class ChatAnswer(Protocol):
    """Fed with what the engine sends, it gives back what can be sent on. `is_done` at the engine's own end."""

    @property
    def usage(self) -> Usage: ...

    @property
    def is_done(self) -> bool: ...

    def feed(self, data: bytes) -> bytes:
        """Raises EngineError."""

    def last(self) -> bytes:
        """What remains to be sent once all is charged."""


def chat_answer(asked: ChatRequest, target: Target) -> ChatAnswer:
    if not asked.streams:
        return WholeChat(asked.model, str(target.gpu))
    return StreamedChat(
        engine_name=target.engine_name,
        client_name=asked.model,
        n=asked.n or 1,
        keeps_final_usage=asked.wants_usage,
    )


class StreamedChat(ChunkRewriter):
    """Events as they come."""

    def last(self) -> bytes:
        return sse.DONE


class WholeChat:
    """Nothing until the end, then one JSON object. What comes is read when somebody wants to know what it says."""

    def __init__(self, model: str, gpu: str) -> None:
        self._model = model
        self._gpu = gpu
        self._unread: list[bytes] = []
        self._reader = ChunkReader()
        self._folding = Folding()

    @property
    def usage(self) -> Usage:
        self._read()
        return self._reader.usage

    @property
    def is_done(self) -> bool:
        """Raises EngineError."""
        self._read()
        return self._reader.is_done

    def feed(self, data: bytes) -> bytes:
        self._unread.append(data)
        if ERROR in data:
            self._read()
        return b""

    def last(self) -> bytes:
        return orjson.dumps(completion(self._folding.completion, model=self._model, gpu=self._gpu))

    def _read(self) -> None:
        if not self._unread:
            return
        data = b"".join(self._unread)
        self._unread.clear()
        self._folding.feed(*self._reader.feed(data))


def completion(answer: dict[str, Any], *, model: str, gpu: str) -> dict[str, Any]:
    """The folded answer under the name the client used."""
    return {**answer, "model": model, "selected_gpu": gpu}
