"""What a client is told when an engine refuses, fails or breaks off."""

import re

import orjson
import structlog

from app.catalog.resolve import Target
from app.engines.connection import ConnectionBroken, EngineSilent
from app.error_handlers import as_api_error
from app.errors import APIError, BadRequest, Unavailable
from app.inference.chunks import EngineError

log = structlog.get_logger()

MAX_ERROR_CHARS = 1000
# What vLLM says a second time, behind its sentence.
OWN_WORDS = re.compile(r" \(parameter=\w+(, value=.*)?\)$", re.DOTALL)


class EngineLost(Unavailable):
    """The engine failed while it worked on the request; nothing is charged."""

    code = "engine_error"
    headers = {"Retry-After": "2"}


class ContextExceeded(BadRequest):
    """More tokens than the model's context holds."""

    code = "context_length_exceeded"


def lost(target: Target, error: ConnectionBroken | EngineSilent) -> EngineLost:
    if isinstance(error, EngineSilent):
        return EngineLost(f"The engine of {target.model.id} has been {error}.")
    log.warning("engine lost", model=target.model.id, error=repr(error)[:300])
    return EngineLost(f"The engine of {target.model.id} stopped while it worked; try again.")


def broken_off() -> EngineLost:
    return EngineLost("The engine's answer broke off; try again.")


def failure(error: Exception) -> APIError:
    """Whatever went wrong with an answer; what nobody foresaw is logged as a bug."""
    return refused_in_stream(error) if isinstance(error, EngineError) else as_api_error(error)


def refused_in_stream(error: EngineError) -> APIError:
    """Inside a stream, the engine tells the status in the error itself."""
    try:
        status = int(orjson.loads(error.body)["error"]["code"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        status = 500
    return refusal(status, error.body)


def refusal(status: int, body: bytes) -> APIError:
    """The engine's own error, in our words: short, and with a code that clients know."""
    try:
        error = orjson.loads(body)["error"]
        message = OWN_WORDS.sub("", str(error["message"]))[:MAX_ERROR_CHARS]
        param = error.get("param")
    except (orjson.JSONDecodeError, KeyError, TypeError):
        error, message, param = {}, "The engine refused the request.", None
    if status in (400, 422):
        if "context length" in message or "max_model_len" in message:
            return ContextExceeded(message, param="messages")  # the engine speaks of tokens, which nobody sent
        return BadRequest(message, param=str(param) if param else None)
    # Its message may quote the prompt; the engine's own log says more.
    log.warning("engine error", status=status, kind=str(error.get("type"))[:100])
    return EngineLost("The engine could not answer this request; try again.")
