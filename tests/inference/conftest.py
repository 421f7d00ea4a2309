"""Who asks in the tests of inference, on the simulated server."""

from collections.abc import AsyncIterator

import pytest
from openai import AsyncOpenAI

from tests.servers import Server, TestOrg


@pytest.fixture
def org(simulated: Server) -> TestOrg:
    return simulated.new_org()


@pytest.fixture
async def openai(simulated: Server, org: TestOrg) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{simulated.url}/v1", api_key=org.key) as client:
        yield client
