"""A conversation cut to what a model's context holds: the oldest goes first, what the model was told to be stays."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson

from app.inference.engine_errors import ContextExceeded
from app.inference.relay import Meter, Relay, TokenCount

Message = Mapping[str, Any]

# What an answer shall have room for where nobody said how long it may be, as a part of the context; and at most.
USUAL_SHARE, GREATEST_SHARE = 8, 2
# No text in the world has longer ones on average: what is larger need not be counted, which takes its time.
MAX_TOKEN_BYTES = 16


class TooLongAlone(ContextExceeded):
    def __init__(self, context_length: int) -> None:
        message = (
            f"The input is longer than this model's context of {context_length} tokens, even without its earlier turns."
        )
        super().__init__(message, param="input")


class TruncatingRelay(Relay):
    """Asks an engine that refuses a conversation for its length again, with less of it."""

    @asynccontextmanager
    async def stream(self, body: Mapping[str, Any], meter: Meter) -> AsyncIterator[AsyncIterator[bytes]]:
        async with AsyncExitStack() as until_end:
            try:
                pieces = await until_end.enter_async_context(super().stream(body, meter))
            except ContextExceeded:
                shorter = await self._shortened(body)
                pieces = await until_end.enter_async_context(super().stream(shorter, meter))
            yield pieces

    async def _shortened(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """With the fewest steps dropped that make it fit; all of them, if there is only room for less of an answer.

        Raises ContextExceeded when the last turn alone is too long.
        """
        steps = steps_that_may_go(body["messages"])
        fewest = fewest_by_size(body, steps, self.target.model.context_length * MAX_TOKEN_BYTES)
        most = len(steps)
        if fewest > most or (shortest := await self.count(without(body, steps))).tokens >= shortest.limit:
            raise TooLongAlone(self.target.model.context_length)
        while fewest < most:
            middle = (fewest + most) // 2
            if leaves_room(await self.count(without(body, steps[:middle])), body):
                most = middle
            else:
                fewest = middle + 1
        return without(body, steps[:most])


def fewest_by_size(body: Mapping[str, Any], steps: Sequence[Sequence[int]], max_bytes: int) -> int:
    """How many steps have to go at the least; more than there are when all are not enough."""
    sizes = [len(orjson.dumps(message)) for message in body["messages"]]
    left = sum(sizes) + len(orjson.dumps(body.get("tools")))
    for fewest, step in enumerate(steps):
        if left <= max_bytes:
            return max(fewest, 1)
        left -= sum(sizes[index] for index in step)
    return max(len(steps), 1) if left <= max_bytes else len(steps) + 1


def leaves_room(count: TokenCount, body: Mapping[str, Any]) -> bool:
    room = min(body.get("max_completion_tokens") or count.limit // USUAL_SHARE, count.limit // GREATEST_SHARE)
    return count.tokens + room <= count.limit


def steps_that_may_go(messages: Sequence[Message]) -> list[list[int]]:
    """Indexes of messages that go together, first to go first: earlier turns whole, then what the model did in the
    last one before its last step."""
    *earlier, last = _split(messages, range(len(messages)), at="user")
    question = next((place for place, index in enumerate(last) if messages[index]["role"] == "user"), -1)
    steps = _split(messages, last[question + 1 :], at="assistant")
    may_go = [*earlier, *steps[:-1]]
    return [kept for step in may_go if (kept := [i for i in step if messages[i]["role"] != "system"])]


def _split(messages: Sequence[Message], indexes: Sequence[int], *, at: str) -> list[list[int]]:
    """Runs of messages, each but perhaps the first begun by one of that role."""
    runs: list[list[int]] = [[]]
    for index in indexes:
        if messages[index]["role"] == at and any(messages[i]["role"] != "system" for i in runs[-1]):
            runs.append([])
        runs[-1].append(index)
    return runs


def without(body: Mapping[str, Any], steps: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Results of tools go with the calls that they belong to."""
    gone = {index for step in steps for index in step}
    kept = [message for index, message in enumerate(body["messages"]) if index not in gone]
    called = {call["id"] for message in kept for call in message.get("tool_calls") or ()}
    return {**body, "messages": [m for m in kept if m["role"] != "tool" or m.get("tool_call_id") in called]}
