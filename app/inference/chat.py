"""POST /chat/completions: the engine's answer, passed on."""

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from app import sse
from app.catalog.preference import wanted_gpu
from app.error_handlers import as_api_error, validation_error
from app.inference.admission import admit, read_json, relay_of
from app.inference.bounds import (
    allowed_names,
    check_answers_asked,
    check_schema,
    check_takes_tools,
    check_tool_choice,
    check_tools,
    is_allowed_tools,
)
from app.inference.chat_answer import chat_answer
from app.inference.chat_request import ChatRequest
from app.inference.messages import check_messages
from app.inference.relay import Relay
from app.inference.sending import EventStream, until_disconnect
from app.orgs.auth import get_current_org
from app.plain_route import PlainRoute

router = APIRouter(tags=["inference"], route_class=PlainRoute)


@router.post(
    "/chat/completions",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": ChatRequest.model_json_schema()}},
        }
    },
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}, sse.MEDIA_TYPE: {}}}},
)
async def create_chat_completion(request: Request) -> Response:
    """OpenAI's chat completions, with vLLM's own sampling fields; `stream` for server-sent events."""
    org_id = get_current_org(request)
    body = await read_json(request)
    asked = parse(body)
    target = await admit(request, org_id, asked.model, wanted_gpu(request.scope, body))
    check_takes_tools(target.model, asked.tools, asked.tool_choice)
    return ChatResponse(relay_of(request, target, org_id), asked)


def parse(body: dict[str, Any]) -> ChatRequest:
    """Raises BadRequest."""
    check_answers_asked(body)
    try:
        asked = ChatRequest.model_validate(body)
    except ValidationError as error:
        raise validation_error(error.errors()) from error
    check_messages(asked.messages)
    check_tools(asked.tools)
    check_tool_choice(asked.tools, asked.tool_choice)
    if asked.response_format and asked.response_format["type"] == "json_schema":
        check_schema(asked.response_format["json_schema"]["schema"], "response_format.json_schema.schema")
    return _among_allowed_tools(asked) if is_allowed_tools(asked.tool_choice) else asked


def _among_allowed_tools(asked: ChatRequest) -> ChatRequest:
    """An engine is shown no other tools."""
    assert isinstance(asked.tool_choice, dict)
    names = allowed_names(asked.tool_choice)
    tools = [tool for tool in asked.tools or () if tool["function"]["name"] in names]
    return asked.model_copy(update={"tools": tools, "tool_choice": asked.tool_choice["allowed_tools"]["mode"]})


class ChatResponse(Response):
    """Does its work while it is sent, so that a client that leaves at any moment ends it."""

    def __init__(self, relay: Relay, asked: ChatRequest) -> None:
        super().__init__()
        self._relay = relay
        self._asked = asked
        self._body = relay.body(asked)
        self._answer = chat_answer(asked, relay.target)
        self._gpu = str(relay.target.gpu)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = self._stream(send) if self._asked.streams else self._whole(scope, receive, send)
        await until_disconnect(receive, work)

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._relay.stream(self._body, self._answer) as pieces:
            async for piece in pieces:
                self._answer.feed(piece)
        headers = {"x-gpu-type": self._gpu}
        await Response(self._answer.last(), media_type="application/json", headers=headers)(scope, receive, send)

    async def _stream(self, send: Send) -> None:
        stream = EventStream(send, [(b"x-gpu-type", self._gpu.encode())])
        try:
            await self._pass_on(stream)
        except Exception as error:  # once a stream has begun, nobody above can answer
            if not stream.has_begun:
                raise
            await stream.end(sse.encode(as_api_error(error).body()))

    async def _pass_on(self, stream: EventStream) -> None:
        with stream.kept_alive(self._relay.settings.keep_alive_seconds):
            async with self._relay.stream(self._body, self._answer) as pieces:
                async for piece in pieces:
                    if events := self._answer.feed(piece):
                        await stream.write(events)
        self._relay.check_funds(self._answer.usage)
        await stream.end(self._answer.last())
