"""The clients' own settings for a simulated server."""

from typing import Any

import pytest

from tests.servers import Server


@pytest.fixture(scope="module")
def reach(simulated: Server) -> dict[str, Any]:
    """Where the server is, with the key of a new organisation: what every client asks for."""
    return {"base_url": f"{simulated.url}/v1", "api_key": simulated.new_org().key}
