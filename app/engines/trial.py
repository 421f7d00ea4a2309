"""The trial of a new fine-tune: every running engine of its base loads it and answers through it, or none keeps it."""

import structlog

from app.catalog.resolve import Target
from app.engines.client import EngineRefused, NotFinite, Token
from app.engines.engine import Engine
from app.engines.pool import EnginePool
from app.errors import APIError, Unavailable

log = structlog.get_logger()

CANARY_SECONDS = 120.0


class NoAnswer(Unavailable):
    code = "canary_failed"


class Unservable(APIError):
    """The adapter itself is at fault, whichever engine has it: to try again is of no use."""


class ChangesNothing(Unservable):
    code = "adapter_changes_nothing"


class NoNumbers(Unservable):
    code = "adapter_not_finite"


async def try_everywhere(pool: EnginePool, target: Target, *, org_id: str) -> None:
    """On one engine at least. The adapter is loaded nowhere if it fails.

    Raises NoAnswer, Unservable, and as `EnginePool.lease` does.
    """
    try:
        async with pool.lease(target, org_id=org_id) as first:
            await _try(first, target)
            for engine in pool.find(target.model.id):
                if engine is not first and engine.is_ready:
                    async with pool.lease_of(engine, target):
                        await _try(engine, target)
    except APIError:
        await _roll_back(pool, target)
        raise


async def _try(engine: Engine, target: Target) -> None:
    """By what the same engine says without it, to the last bit: the least that was learned shows in some of it.

    A full fine-tune has an engine of its own, which has nothing to compare with: numbers are all that is asked of it.
    That it differs from its base, as what is trained on differs from its origin, the recipe has seen by the weights.
    """
    is_adapter = target.adapter is not None
    base = await _ask(engine, target.model.id) if is_adapter else None
    if is_adapter and base is None:
        raise NoAnswer("The engine computes no numbers, with or without the fine-tuned model.")
    tuned = await _ask(engine, target.engine_name)
    if tuned is None:
        raise NoNumbers("The fine-tuned model computes no numbers: its weights are too large; lower learning_rate.")
    if tuned == base:
        raise ChangesNothing(
            "The fine-tuned model answers as its base does, to the last digit of every log-probability: "
            "nothing was learned. Raise learning_rate, or train for more steps."
        )


async def _ask(engine: Engine, name: str) -> list[Token] | None:
    """None where it is no numbers, and the engine is ended for it: they stay in its cache, for whoever has that next.

    Raises NoAnswer.
    """
    try:
        return await engine.client.say_greedily(name, within_seconds=CANARY_SECONDS)
    except NotFinite:
        log.error("engine ended: it has computed no numbers", engine=engine.id, model=name)
        await engine.stop()
        return None
    except (OSError, EngineRefused) as error:
        log.warning("no answer to the canary", engine=engine.id, model=name, error=repr(error)[:300])
        raise NoAnswer("The fine-tuned model did not answer its first prompt.") from error


async def _roll_back(pool: EnginePool, target: Target) -> None:
    for engine in pool.find(target.model.id):
        if engine.is_ready and engine.has_adapter(target.engine_name):
            log.info("adapter taken back", engine=engine.id, adapter=target.engine_name)
            await engine.adapters.unload([target.engine_name])
