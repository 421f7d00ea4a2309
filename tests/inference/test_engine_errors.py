"""What clients are told of an engine's refusals."""

import orjson
import pytest

from app.errors import APIError
from app.inference.engine_errors import refusal

TOO_LONG = "This model's maximum context length is 4096 tokens. (parameter=input_tokens, value=4097)"
NO_SUCH_TOKEN = "token_id(s) [9] in stop_token_ids\nare not known. (parameter=stop_token_ids, value=[9])"


@pytest.mark.parametrize(
    ("message", "param", "told"),
    [
        (TOO_LONG, "input_tokens", ("This model's maximum context length is 4096 tokens.", "messages")),
        (NO_SUCH_TOKEN, "stop_token_ids", ("token_id(s) [9] in stop_token_ids\nare not known.", "stop_token_ids")),
        ("`logprobs` must be true. (parameter=top_logprobs)", None, ("`logprobs` must be true.", None)),
    ],
)
def test_a_refusal_names_a_field_of_the_client_and_says_it_once(
    message: str, param: str | None, told: tuple[str, str | None]
) -> None:
    error: APIError = refusal(400, orjson.dumps({"error": {"message": message, "param": param}}))
    assert (error.status_code, error.message, error.param) == (400, *told)
