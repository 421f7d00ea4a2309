"""HTTP to one engine, over its Unix socket."""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import orjson

# An engine may think for as long as it likes before its first byte; how long that is, the caller decides.
NO_LIMIT = aiohttp.ClientTimeout(total=None, sock_connect=5)
SHORT = aiohttp.ClientTimeout(total=60)


class EngineClient:
    """Owned by its engine, which closes it."""

    def __init__(self, socket: Path) -> None:
        connector = aiohttp.UnixConnector(str(socket), limit=0)
        self._http = aiohttp.ClientSession("http://engine", connector=connector, auto_decompress=False)

    async def close(self) -> None:
        await self._http.close()

    async def is_healthy(self) -> bool:
        try:
            async with self._http.get("/health", timeout=SHORT) as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError):
            return False

    async def answers(self, name: str, *, within_seconds: float) -> bool:
        """Whether `name` still makes a token: an open port says nothing of an engine that hangs."""
        body = {"model": name, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        try:
            async with asyncio.timeout(within_seconds), self.chat(body) as response:
                await response.read()
                return response.status == 200
        except (aiohttp.ClientError, OSError):
            return False

    async def loaded_adapters(self) -> set[str]:
        async with self._http.get("/v1/models", timeout=SHORT) as response:
            response.raise_for_status()
            models = orjson.loads(await response.read())["data"]
        return {model["id"] for model in models if model.get("parent")}

    async def load_adapter(self, name: str, folder: Path) -> str | None:
        """None when it is loaded, else the engine's reason."""
        body = orjson.dumps({"lora_name": name, "lora_path": str(folder)})
        try:
            async with self._http.post("/v1/load_lora_adapter", data=body, headers=JSON, timeout=SHORT) as response:
                text = await response.text()
        except (aiohttp.ClientError, OSError) as error:
            return f"no answer: {error!r}"
        if response.status == 200 or "already been loaded" in text:
            return None
        return text[:1000]

    def chat(self, body: Mapping[str, Any] | bytes) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """The engine's answer to a chat completion, to be read by the caller."""
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        return self._http.post("/v1/chat/completions", data=data, headers=JSON, timeout=NO_LIMIT)


JSON = {"Content-Type": "application/json"}
