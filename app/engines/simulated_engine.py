"""The simulated engine's routes: vLLM's, with made-up answers, at a set pace, with faults on request."""

import argparse
import asyncio
import logging
import math
import os
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from app.engines.simulated_adapters import read_adapter, read_own
from app.engines.simulated_answers import Adapter, Answer, answer
from app.engines.simulated_request import (
    ChatRequest,
    Json,
    Refusal,
    parse_body,
    parse_chat,
    pieces,
    prompt_of,
    token_id,
)
from app.engines.simulated_sleep import SimulatedSleep
from app.engines.simulated_wire import (
    Exchange,
    completion,
    event,
    first_chunk,
    is_told,
    model_card,
    token_chunk,
    usage_chunk,
)

log = logging.getLogger("simulated")

BLOCK_TOKENS = 16  # what vLLM's prefix cache holds at once
MAX_CACHED_BLOCKS = 100_000


class SimulatedEngine:
    """One engine process: its flags, its adapters, the prompts it has seen, how many it is answering."""

    def __init__(self, flags: argparse.Namespace) -> None:
        self.flags = flags
        self.sleeping = SimulatedSleep(flags.faults)
        self.own = read_own(flags.served_model_name[0], Path(flags.model))
        self.adapters: dict[str, Adapter] = {}
        self.cached_blocks: set[int] = set()
        self.running_requests = 0
        self.generated_tokens = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        self.running_requests += 1
        try:
            yield
        finally:
            self.running_requests -= 1

    # the API

    async def chat(self, request: Request) -> Response:
        body = parse_body(await request.body())
        self.check_model(body)
        asked = parse_chat(body, self.flags.max_model_len, self.flags.faults)
        if "error" in asked.directives and not asked.directives["error"]:
            raise engine_error()
        await self.sleeping.awake.wait()
        adapter = self.adapters.get(asked.model or "")
        can_think = bool(self.flags.reasoning_parser)
        if asked.thinking_token_budget is not None and not can_think:
            raise Refusal("thinking_token_budget is set but reasoning_config is not configured.")
        exchange = Exchange(
            request=asked,
            model=adapter.name if adapter else self.flags.served_model_name[0],
            cached_tokens=self.cached_tokens(asked, adapter),
            counts_reasoning=can_think,
        )
        effective = self.learned(adapter)
        if effective and math.isnan(effective.weight) and asked.top_logprobs is not None:
            raise Refusal("Out of range float values are not JSON compliant")
        answers = [
            self.sleeping.said(answer(asked, index, adapter=effective, can_think=can_think)) for index in range(asked.n)
        ]
        if asked.stream:
            return CountedStream(self, self.stream(exchange, answers))
        with self.running():
            return await unless_gone(request, self.complete(exchange, answers))

    def learned(self, adapter: Adapter | None) -> Adapter | None:
        """What answers otherwise than the base does; an adapter that was loaded before a sleep is spoilt."""
        if adapter and adapter.loaded_at != self.sleeping.n_sleeps:
            return None
        effective = adapter or self.own
        return effective if effective and effective.weight else None

    async def complete(self, exchange: Exchange, answers: list[Answer]) -> Response:
        async for _ in self.ticks(exchange.request, answers):
            pass
        return JSONResponse(completion(exchange, answers))

    async def stream(self, exchange: Exchange, answers: list[Answer]) -> AsyncIterator[bytes]:
        for each in answers:
            yield event(first_chunk(exchange, each.index))
        try:
            async for nth in self.ticks(exchange.request, answers):
                for each in answers:
                    if is_told(exchange.request, each, nth):
                        yield event(token_chunk(exchange, each, nth))
            if exchange.request.include_usage:
                yield event(usage_chunk(exchange, answers))
        except Refusal as refusal:
            yield event(refusal.body)
        yield b"data: [DONE]\n\n"

    async def ticks(self, request: ChatRequest, answers: list[Answer]) -> AsyncIterator[int]:
        """0, 1, … when that token of each answer is due, and one more for the end; faults come in between."""
        await asyncio.sleep(request.directives.get("slow") or 0)
        pace = request.directives.get("pace") or self.flags.simulate_tokens_per_second
        length, started_at = max(len(each.tokens) for each in answers), time.monotonic()
        for nth in range(length + 1):
            await break_if_due(request, nth, length)
            yield nth
            self.generated_tokens += sum(nth < len(each.tokens) for each in answers)
            due_at = started_at + (nth + 1) / pace if pace and nth < length else 0
            await asyncio.sleep(max(0.0, due_at - time.monotonic()))

    async def tokenize(self, request: Request) -> Response:
        body = parse_body(await request.body())
        self.check_model(body)
        tokens = (
            prompt_of(body["messages"], body.get("tools")) if "messages" in body else pieces(body.get("prompt", ""))
        )
        return JSONResponse(
            {
                "count": len(tokens),
                "max_model_len": self.flags.max_model_len,
                "tokens": [token_id(token) for token in tokens],
                "token_strs": tokens if body.get("return_token_strs") else None,
            }
        )

    async def models(self, _request: Request) -> Response:
        flags = self.flags
        bases = [
            model_card(name, root=flags.model, max_model_len=flags.max_model_len) for name in flags.served_model_name
        ]
        parent = flags.served_model_name[0]
        loaded = [model_card(each.name, root=each.path, parent=parent) for each in self.adapters.values()]
        return JSONResponse({"object": "list", "data": bases + loaded})

    async def load_adapter(self, request: Request) -> Response:
        body = parse_body(await request.body())
        name, path = body.get("lora_name"), body.get("lora_path")
        if not name or not path:
            raise Refusal("Both 'lora_name' and 'lora_path' must be provided.", kind="InvalidUserInput")
        if name in self.flags.served_model_name:
            raise Refusal(f"The lora adapter '{name}' conflicts with a served base model.", kind="InvalidUserInput")
        if name in self.adapters and not body.get("load_inplace"):
            text = (
                f"The lora adapter '{name}' has already been loaded. "
                "If you want to load the adapter in place, set 'load_inplace' to True."
            )
            raise Refusal(text, kind="InvalidUserInput")
        loaded = read_adapter(name, Path(path), self.flags.max_lora_rank)
        self.adapters[name] = replace(loaded, loaded_at=self.sleeping.n_sleeps)
        log.info("Loaded new LoRA adapter: name '%s', path '%s'", name, path)
        return Response(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload_adapter(self, request: Request) -> Response:
        name = parse_body(await request.body()).get("lora_name")
        if not name:
            raise Refusal("'lora_name' needs to be provided to unload a LoRA adapter.", kind="InvalidUserInput")
        if name not in self.adapters:
            raise Refusal(f"The lora adapter '{name}' cannot be found.", kind="NotFoundError", status=404)
        del self.adapters[name]
        log.info("Removed LoRA adapter: name '%s'", name)
        return Response(f"Success: LoRA adapter '{name}' removed successfully.")

    async def health(self, _request: Request) -> Response:
        return Response()

    async def version(self, _request: Request) -> Response:
        return JSONResponse({"version": "0.32.0"})

    async def metrics(self, _request: Request) -> Response:
        label = f'{{engine="0",model_name="{self.flags.served_model_name[0]}"}}'
        figures = {
            "vllm:num_requests_running": ("gauge", self.running_requests),
            "vllm:num_requests_waiting": ("gauge", 0),
            "vllm:generation_tokens_total": ("counter", self.generated_tokens),
        }
        lines = [f"# TYPE {name} {kind}\n{name}{label} {float(value)}\n" for name, (kind, value) in figures.items()]
        return PlainTextResponse("".join(lines))

    # what it looks up

    def check_model(self, body: Json) -> None:
        name, served = body.get("model"), self.flags.served_model_name
        if name and name not in served and name not in self.adapters:
            text = f"The model `{name}` does not exist. Valid aliases: {', '.join(served)}."
            raise Refusal(text, param="model", kind="NotFoundError", status=404)

    def cached_tokens(self, request: ChatRequest, adapter: Adapter | None) -> int:
        """How much of the prompt was seen before, in whole blocks, under the same salt and adapter."""
        key, known = hash((request.cache_salt, adapter.name if adapter else "")), 0
        # The last token is always computed, so a prompt is never cached whole.
        for start in range(0, (len(request.prompt) - 1) // BLOCK_TOKENS * BLOCK_TOKENS, BLOCK_TOKENS):
            key = hash((key, *request.prompt[start : start + BLOCK_TOKENS]))
            known += BLOCK_TOKENS * (key in self.cached_blocks)
            self.cached_blocks.add(key)
        if len(self.cached_blocks) > MAX_CACHED_BLOCKS:
            self.cached_blocks.clear()
        return known


class CountedStream(StreamingResponse):
    """A stream that counts as running from its first byte until its client has gone, whoever ends it."""

    def __init__(self, engine: SimulatedEngine, content: AsyncIterator[bytes]) -> None:
        super().__init__(content, media_type="text/event-stream")
        self.engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.engine.running():
            await super().__call__(scope, receive, send)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The work's response, or none as soon as the client hangs up."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(request.receive())  # the body is read: what comes now is the disconnect
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else Response(status_code=499)
    finally:
        working.cancel()
        leaving.cancel()


async def break_if_due(request: ChatRequest, nth: int, length: int) -> None:
    """Crash, hang or fail after as many tokens as the directive says (else 3), at the end at the latest."""
    due = [name for name in ("crash", "hang", "error") if name in request.directives]
    for fault in due:
        after_tokens = request.directives[fault]
        if nth != min(length, 3 if after_tokens is None else int(after_tokens)):
            continue
        log.error("Simulating: %s", fault)
        match fault:
            case "crash":
                os._exit(1)
            case "hang":
                await asyncio.Event().wait()
            case "error":
                raise engine_error()


def engine_error() -> Refusal:
    text = "EngineCore encountered an issue. See stack trace (above) for the root cause."
    return Refusal(text, kind="InternalServerError", status=500)


async def refuse(_request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    return JSONResponse(refusal.body, status_code=refusal.status)


def create_app(flags: argparse.Namespace) -> Starlette:
    engine = SimulatedEngine(flags)
    routes = [
        Route("/health", engine.health),
        Route("/version", engine.version),
        Route("/metrics", engine.metrics),
        Route("/v1/models", engine.models),
        Route("/v1/chat/completions", engine.chat, methods=["POST"]),
        Route("/tokenize", engine.tokenize, methods=["POST"]),
        Route("/v1/load_lora_adapter", engine.load_adapter, methods=["POST"]),
        Route("/v1/unload_lora_adapter", engine.unload_adapter, methods=["POST"]),
        *engine.sleeping.routes(),
    ]
    return Starlette(routes=routes, exception_handlers={Refusal: refuse})
