"""How long a request's prompt is: nothing is generated, and nothing charged."""

from typing import Any

from app.inference.chat_request import ChatRequest
from app.inference.relay import Relay
from app.inference.responses_words import in_responses_words


class Counting:
    """One request, and the number of its tokens."""

    def __init__(self, relay: Relay, chat: ChatRequest) -> None:
        self._relay = relay
        self._body = relay.body(chat)
        self.gpu = str(relay.target.gpu)

    async def whole(self) -> dict[str, Any]:
        """Raises as `Relay.count` does."""
        with in_responses_words():
            count = await self._relay.count(self._body)
        return {"object": "response.input_tokens", "input_tokens": count.tokens}
