"""The simulated engine's sleep: vLLM's routes for it, and what they do to whoever forgets a step."""

import asyncio
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.engines.simulated_answers import Answer, Token
from app.engines.simulated_request import Refusal, parse_body

log = logging.getLogger("simulated")

ALL_TAGS = frozenset({"weights", "kv_cache"})


@dataclass
class SimulatedSleep:
    """Faults: `sleep_takes:SECONDS`, `sleep_fails`, `wake_fails`, `wake_crashes`, `wake_spoils` (the weights),
    `reset_refused`.
    """

    faults: Mapping[str, float | None]
    level: int = 0
    asleep: frozenset[str] = frozenset()
    has_lost_weights: bool = False
    n_sleeps: int = 0
    awake: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.awake.set()

    def routes(self) -> list[Route]:
        if os.environ.get("VLLM_SERVER_DEV_MODE") != "1":
            return []
        return [
            Route("/sleep", self.sleep, methods=["POST"]),
            Route("/wake_up", self.wake_up, methods=["POST"]),
            Route("/is_sleeping", self.is_sleeping),
            Route("/collective_rpc", self.collective_rpc, methods=["POST"]),
            Route("/reset_prefix_cache", self.reset_prefix_cache, methods=["POST"]),
        ]

    def said(self, answer: Answer) -> Answer:
        """Noise, where the weights are gone."""
        if not self.has_lost_weights:
            return answer
        return replace(answer, tokens=[Token(token.part, "!") for token in answer.tokens])

    async def sleep(self, request: Request) -> Response:
        self.fail_if("sleep_fails")
        await asyncio.sleep(self.faults.get("sleep_takes") or 0)
        self.level, self.asleep = int(request.query_params.get("level", 1)), ALL_TAGS
        self.n_sleeps += 1
        self.awake.clear()
        log.info("Sleeping at level %d", self.level)
        return JSONResponse({"status": "sleeping", "level": self.level})

    async def wake_up(self, request: Request) -> Response:
        self.fail_if("wake_fails")
        if "wake_crashes" in self.faults:
            os._exit(1)
        tags = request.query_params.getlist("tags") or None
        if "weights" in (tags or ALL_TAGS):
            self.has_lost_weights = self.level == 2 or "wake_spoils" in self.faults
        self.asleep -= frozenset(tags or ALL_TAGS)
        if not self.asleep:
            self.awake.set()
        return JSONResponse({"status": "sleeping" if self.asleep else "awake", "tags": tags})

    async def is_sleeping(self, _request: Request) -> Response:
        return JSONResponse({"is_sleeping": bool(self.asleep)})

    async def collective_rpc(self, request: Request) -> Response:
        if parse_body(await request.body()).get("method") != "reload_weights" or "weights" in self.asleep:
            raise Refusal("EngineCore encountered an issue.", kind="InternalServerError", status=500)
        self.has_lost_weights = "wake_spoils" in self.faults
        return JSONResponse({"results": [None]})

    async def reset_prefix_cache(self, _request: Request) -> Response:
        return JSONResponse({"success": "reset_refused" not in self.faults})

    def fail_if(self, fault: str) -> None:
        if fault in self.faults:
            raise Refusal(f"Simulating: {fault}", kind="InternalServerError", status=500)
