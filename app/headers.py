"""Headers of a request, read where ASGI has them: nothing is built for one that is looked up once."""

from starlette.types import Scope


def header_of(scope: Scope, name: bytes) -> str | None:
    """The first one of that name (lower case)."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return None
