"""Which models a key may use."""

from app.errors import APIError
from app.orgs.keys import CurrentKey

MAX_NAMED = 5


class ModelNotAllowed(APIError):
    """As OpenAI answers a key of a project that may not use the model; whether there is such a model is not told."""

    status_code, type, code = 403, "invalid_request_error", "model_not_found"

    def __init__(self, key: CurrentKey, model: str) -> None:
        allowed = sorted(key.models or ())
        names = ", ".join(allowed[:MAX_NAMED]) + (", …" if len(allowed) > MAX_NAMED else "")
        message = f"This key may not use the model '{model[:100]}'; it may use: {names or 'none'}."
        super().__init__(message, param="model")


def require_model(key: CurrentKey, model: str) -> None:
    """Raises ModelNotAllowed."""
    if not key.may_use(model):
        raise ModelNotAllowed(key, model)
