"""The best n of several samples: those with the highest mean token log-probability."""

from collections.abc import Mapping
from typing import Any

from app.inference.responses_request import ResponseCreate


def best_of(request: ResponseCreate, completion: Mapping[str, Any]) -> dict[str, Any]:
    """The completion with `n` of its choices, best first; its usage counts them all."""
    ranked = sorted(completion["choices"], key=_mean_logprob, reverse=True)
    kept = [{**choice, "index": index} for index, choice in enumerate(ranked[: request.n])]
    if not request.wants_logprobs:
        kept = [{**choice, "logprobs": None} for choice in kept]
    return {**completion, "choices": kept}


def _mean_logprob(choice: Mapping[str, Any]) -> float:
    tokens = (choice.get("logprobs") or {}).get("content") or []
    return sum(token["logprob"] for token in tokens) / len(tokens) if tokens else float("-inf")
