"""HTTP to one engine, over its Unix socket."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from app.engines.answer import EngineAnswer
from app.engines.connection import OK, ConnectionBroken, EngineConnection
from app.ids import new_id

CONNECT_SECONDS = 5.0
SHORT_SECONDS = 60.0
CANARY_TOKENS = 16
CANARY_ALTERNATIVES = 20  # as many as engines tell
NO_NUMBERS = "not JSON compliant"  # so vLLM refuses to write an answer that has a NaN in it


class EngineRefused(Exception):
    """It has answered, and not as it was to."""


class NotFinite(EngineRefused):
    """What the model computes is no numbers."""


@dataclass(frozen=True)
class Token:
    """One of an answer, how sure the model was of it, and of the likeliest others."""

    text: str
    logprob: float
    alternatives: tuple[float, ...] = ()


class EngineClient:
    """Keeps its connections for the next request. Owned by its engine, which closes it."""

    def __init__(self, socket: Path) -> None:
        self._socket = str(socket)
        self._idle: list[EngineConnection] = []
        self._opening: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Nothing is in flight any more: the engine has ended."""
        while self._idle:
            self._idle.pop().abort()

    async def is_healthy(self) -> bool:
        try:
            async with self._request(_get("/health"), silence_seconds=SHORT_SECONDS) as answer:
                await answer.read_all()
                return answer.status == OK
        except OSError:
            return False

    async def answers(self, name: str, *, within_seconds: float) -> bool:
        """Whether `name` still makes a token: an open port says nothing of an engine that hangs."""
        body = {"model": name, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        try:
            async with asyncio.timeout(within_seconds), self.chat(body, silence_seconds=within_seconds) as answer:
                await answer.read_all()
                return answer.status == OK
        except OSError:
            return False

    async def loaded_adapters(self) -> set[str]:
        async with self._request(_get("/v1/models"), silence_seconds=SHORT_SECONDS) as answer:
            models = orjson.loads(await answer.read_all())["data"]
        return {model["id"] for model in models if model.get("parent")}

    async def load_adapter(self, name: str, folder: Path) -> str | None:
        """None when it is loaded, else the engine's reason."""
        refusal = await self._order("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
        return None if refusal and "already been loaded" in refusal else refusal

    async def unload_adapter(self, name: str) -> str | None:
        """None when it is no longer there, else the engine's reason."""
        refusal = await self._order("/v1/unload_lora_adapter", {"lora_name": name})
        return None if refusal and "cannot be found" in refusal else refusal

    async def count_generated_tokens(self) -> int:
        """Since its process began. Raises OSError."""
        async with self._request(_get("/metrics"), silence_seconds=SHORT_SECONDS) as answer:
            lines = (await answer.read_all()).splitlines()
        return int(sum(float(line.split()[-1]) for line in lines if line.startswith(b"vllm:generation_tokens_total")))

    async def say_greedily(self, name: str, *, within_seconds: float) -> list[Token]:
        """The likeliest answer to one and the same prompt, computed anew each time.

        Raises OSError, EngineRefused, NotFinite.
        """
        body = {
            "model": name,
            "messages": [{"role": "user", "content": "Count from one to ten."}],
            "max_tokens": CANARY_TOKENS,
            "temperature": 0,
            "seed": 1,
            "logprobs": True,
            "top_logprobs": CANARY_ALTERNATIVES,
            "cache_salt": new_id("canary"),
        }
        said = await self._asked(chat_request(body), within_seconds)
        try:
            return [_token(each) for each in said["choices"][0]["logprobs"]["content"]]
        except (KeyError, TypeError, IndexError) as error:
            raise EngineRefused(f"an answer without tokens: {said!r:.300}") from error

    # Sleep: routes that are there in vLLM's development mode only. All raise OSError, EngineRefused.

    async def sleep(self, level: int, *, within_seconds: float) -> None:
        """Ends every request there is."""
        await self._asked(_post(f"/sleep?level={level}", b""), within_seconds)

    async def wake_up(self, *tags: str, within_seconds: float) -> None:
        """Of `weights` and `kv_cache` those named, or all."""
        query = "&".join(f"tags={tag}" for tag in tags)
        await self._asked(_post(f"/wake_up?{query}" if query else "/wake_up", b""), within_seconds)

    async def is_sleeping(self) -> bool:
        return bool((await self._asked(_get("/is_sleeping"), SHORT_SECONDS)).get("is_sleeping", True))

    async def reload_weights(self, *, within_seconds: float) -> None:
        await self._asked(_post("/collective_rpc", orjson.dumps({"method": "reload_weights"})), within_seconds)

    async def reset_prefix_cache(self) -> bool:
        """A refusal is a 200 too."""
        return bool((await self._asked(_post("/reset_prefix_cache", b""), SHORT_SECONDS)).get("success"))

    async def _asked(self, request: bytes, within_seconds: float) -> dict[str, Any]:
        """The object that the engine answers with; an empty one for an empty body."""
        async with self._request(request, silence_seconds=within_seconds) as answer:
            text = await answer.read_all()
        if answer.status != OK:
            told = f"status {answer.status}: {text[:300].decode(errors='replace')}"
            raise NotFinite(told) if NO_NUMBERS in told else EngineRefused(told)
        try:
            body = orjson.loads(text or b"{}")
        except orjson.JSONDecodeError as error:
            raise EngineRefused(f"no JSON: {text[:300]!r}") from error
        if not isinstance(body, dict):
            raise EngineRefused(f"no object: {text[:300]!r}")
        return body

    async def _order(self, path: str, body: Mapping[str, Any]) -> str | None:
        """None when it was obeyed."""
        try:
            async with self._request(_post(path, orjson.dumps(body)), silence_seconds=SHORT_SECONDS) as answer:
                text = (await answer.read_all()).decode(errors="replace")
        except OSError as error:
            return f"no answer: {error!r}"
        return None if answer.status == OK else text[:1000]

    @asynccontextmanager
    async def chat(self, body: Mapping[str, Any], *, silence_seconds: float) -> AsyncIterator[EngineAnswer]:
        """The engine's answer to a chat completion, to be read by the caller; leaving the block early ends it.

        Raises ConnectionBroken, EngineSilent.
        """
        async with self._request(chat_request(body), silence_seconds=silence_seconds) as answer:
            yield answer

    @asynccontextmanager
    async def tokenize(self, body: Mapping[str, Any], *, silence_seconds: float) -> AsyncIterator[EngineAnswer]:
        """The engine's answer to how many tokens a conversation is. Raises as `chat` does."""
        async with self._request(_post("/tokenize", orjson.dumps(body)), silence_seconds=silence_seconds) as answer:
            yield answer

    def take(self) -> tuple[EngineConnection, bool]:
        """A connection to be given back, and whether it was kept: the engine may be closing it at this very moment."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable:
                return connection, True
        connection = EngineConnection()
        opening = asyncio.get_running_loop().create_task(self._open(connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        return connection, False

    def give_back(self, connection: EngineConnection) -> None:
        """One whose answer is not at its end is closed, which ends the generation."""
        if connection.is_reusable:
            self._idle.append(connection)
        else:
            connection.abort()

    @asynccontextmanager
    async def _request(self, request: bytes, *, silence_seconds: float) -> AsyncIterator[EngineAnswer]:
        connection, answer = await self._ask(request, silence_seconds)
        try:
            yield answer
        finally:
            self.give_back(connection)

    async def _ask(self, request: bytes, silence_seconds: float) -> tuple[EngineConnection, EngineAnswer]:
        """On a kept connection if there is one; on the next if it was just being closed."""
        while True:
            connection, was_kept = self.take()
            answer = EngineAnswer(connection)
            connection.ask(request, answer, silence_seconds=silence_seconds)
            try:
                await answer.begun()
            except ConnectionBroken:
                if not was_kept:
                    raise
            except BaseException:
                connection.abort()
                raise
            else:
                return connection, answer

    async def _open(self, connection: EngineConnection) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await loop.create_unix_connection(lambda: connection, self._socket)
        except OSError as error:
            connection.fail(ConnectionBroken(f"no connection: {error!r}"))


def chat_request(body: Mapping[str, Any]) -> bytes:
    """A chat completion's request, as it goes over the wire."""
    return _post("/v1/chat/completions", orjson.dumps(body))


def _token(told: dict[str, Any]) -> Token:
    return Token(told["token"], told["logprob"], tuple(other["logprob"] for other in told.get("top_logprobs", ())))


def _get(path: str) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: engine\r\n\r\n" % path.encode()


def _post(path: str, body: bytes) -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (path.encode(), len(body)) + body
