"""Background responses over HTTP, as openai's client asks for them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx import AsyncClient
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from openai.types.responses import Response

from tests.asking import MODEL, events_of, ledger_of, ok, refused
from tests.conformance.shapes import OPEN_RESPONSES, OPENAI
from tests.eventually import eventually
from tests.servers import Server

pytestmark = pytest.mark.anyio

PATH = "/v1/responses"
FIVE_SECONDS = "Hello [simulate: tokens=200] [simulate: pace=40]"
ONE_SECOND = "Hello [simulate: tokens=40] [simulate: pace=40]"


@pytest.fixture
async def openai(simulated: Server, client: AsyncClient) -> AsyncIterator[AsyncOpenAI]:
    """For the same organisation as `client`."""
    key = client.headers["Authorization"].removeprefix("Bearer ")
    async with AsyncOpenAI(base_url=f"{simulated.url}/v1", api_key=key, max_retries=0) as openai:
        yield openai


async def begin(openai: AsyncOpenAI, text: str = FIVE_SECONDS, **fields: Any) -> Any:
    """The response, or with `stream` its events."""
    return await openai.responses.create(model=MODEL, input=text, background=True, **fields)


async def once(openai: AsyncOpenAI, response_id: str, *statuses: str) -> Response:
    async def look() -> Response | None:
        found: Response = await openai.responses.retrieve(response_id)
        return found if found.status in statuses else None

    return await eventually(look)


async def events_after(client: AsyncClient, response_id: str, number: int | None = None) -> list[dict[str, Any]]:
    after = "" if number is None else f"&starting_after={number}"
    response = await client.get(f"{PATH}/{response_id}?stream=true{after}")
    assert response.status_code == 200, response.text
    return events_of(response)


async def test_a_response_is_queued_and_polled_until_it_is_there(simulated: Server, client: AsyncClient) -> None:
    asked = {"model": MODEL, "input": ONE_SECOND, "background": True}
    answer = await client.post(PATH, json=asked)
    created = ok(answer)
    assert created["status"] == "queued"
    assert answer.headers["x-gpu-type"] == created["selected_gpu"]
    seen = [created]

    async def look() -> dict[str, Any] | None:
        seen.append(ok(await client.get(f"{PATH}/{created['id']}")))
        return seen[-1] if seen[-1]["status"] == "completed" else None

    completed = await eventually(look)
    for response in seen:
        OPENAI.check("Response", response)
        OPEN_RESPONSES.check("ResponseResource", response)
    statuses = [response["status"] for response in seen]
    assert sorted(set(statuses), key=statuses.index) == ["queued", "in_progress", "completed"]
    assert completed["output_text"].startswith("You said")
    [charge] = await ledger_of(simulated, client, "inference")
    assert charge.completion_tokens == completed["usage"]["output_tokens"] == 40


async def test_the_events_come_live_and_again_from_any_number(openai: AsyncOpenAI, client: AsyncClient) -> None:
    live = [event async for event in await begin(openai, ONE_SECOND, stream=True)]
    assert [event.sequence_number for event in live] == list(range(len(live)))
    assert [event.type for event in live[:3]] == ["response.created", "response.queued", "response.in_progress"]
    response_id = live[0].response.id
    again = await events_after(client, response_id)
    assert [event["type"] for event in again] == [event.type for event in live]
    for event in again:
        OPENAI.check_event(event)
    assert again[-1]["response"] == ok(await client.get(f"{PATH}/{response_id}"))
    for number in (0, 7, len(live) - 2, len(live) - 1, len(live) + 5):
        assert await events_after(client, response_id, number) == again[number + 1 :]


async def test_a_client_that_hangs_up_goes_on_later(openai: AsyncOpenAI) -> None:
    seen = []
    async with await begin(openai, ONE_SECOND, stream=True) as stream:
        async for event in stream:
            seen.append(event)
            if event.type == "response.output_text.delta":
                break
    response_id = seen[0].response.id
    rest = await openai.responses.retrieve(response_id, stream=True, starting_after=seen[-1].sequence_number)
    seen += [event async for event in rest]
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert seen[-1].type == "response.completed"
    deltas = [event.delta for event in seen if event.type == "response.output_text.delta"]
    assert "".join(deltas) == seen[-1].response.output_text


async def test_openais_helper_follows_one_by_its_id(openai: AsyncOpenAI) -> None:
    response = await begin(openai, ONE_SECOND)
    async with openai.responses.stream(response_id=response.id, starting_after=5) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert events[0].sequence_number == 6
    assert final.id == response.id
    assert final.status == "completed"


async def test_a_cancelled_response_stays_so_and_is_charged_once(
    simulated: Server, openai: AsyncOpenAI, client: AsyncClient
) -> None:
    response = await begin(openai)
    following = asyncio.create_task(events_after(client, response.id))
    await once(openai, response.id, "in_progress")
    cancelled = ok(await client.post(f"{PATH}/{response.id}/cancel"))
    OPENAI.check("Response", cancelled)
    assert cancelled["status"] == "cancelled"

    async def charged() -> list[Any]:
        return await ledger_of(simulated, client, "inference")

    [charge] = await eventually(charged, within_seconds=1)
    assert 0 < charge.completion_tokens < 200
    told = await asyncio.wait_for(following, 2)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert ok(await client.post(f"{PATH}/{response.id}/cancel")) == cancelled
    assert ok(await client.get(f"{PATH}/{response.id}")) == cancelled
    assert len(await charged()) == 1


async def test_what_is_over_or_not_in_the_background_cannot_be_cancelled(openai: AsyncOpenAI) -> None:
    finished = await begin(openai, "Hi")
    await once(openai, finished.id, "completed")
    plain = await openai.responses.create(model=MODEL, input="Hi")
    for response_id, reason in ((finished.id, "Cannot cancel a completed"), (plain.id, "Cannot cancel a synchronous")):
        with pytest.raises(BadRequestError, match=reason):
            await openai.responses.cancel(response_id)
    with pytest.raises(BadRequestError, match="created with background"):
        await openai.responses.retrieve(plain.id, stream=True)


async def test_a_response_is_deleted_while_it_is_made(
    simulated: Server, openai: AsyncOpenAI, client: AsyncClient
) -> None:
    response = await begin(openai)
    await once(openai, response.id, "in_progress")
    await openai.responses.delete(response.id)
    with pytest.raises(NotFoundError):
        await openai.responses.retrieve(response.id)

    async def charged() -> list[Any]:
        return await ledger_of(simulated, client, "inference")

    [charge] = await eventually(charged, within_seconds=1)
    assert charge.completion_tokens < 200


@pytest.mark.parametrize("fault", ["error", "error=2", "crash"])
async def test_a_response_that_fails_says_so(openai: AsyncOpenAI, client: AsyncClient, fault: str) -> None:
    response = await begin(openai, f"Hello [simulate: {fault}]")
    failed = await once(openai, response.id, "failed")
    assert failed.error
    assert failed.error.code == "server_error"
    told = await events_after(client, response.id)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    OPENAI.check_event(told[-1])
    assert told[-1]["type"] == "response.failed"


async def test_the_same_key_makes_one_response(simulated: Server, client: AsyncClient) -> None:
    asked = {"model": MODEL, "input": ONE_SECOND, "background": True}
    key = {"Idempotency-Key": "once"}
    answers = await asyncio.gather(*(client.post(PATH, json=asked, headers=key) for _ in range(5)))
    [response_id] = {ok(answer)["id"] for answer in answers}
    told = await client.post(PATH, json={**asked, "input": "other"}, headers=key)
    assert told.status_code == 409
    await events_after(client, response_id)
    assert len(await ledger_of(simulated, client, "inference")) == 1


async def test_a_repeated_stream_is_followed_from_its_beginning(client: AsyncClient) -> None:
    asked = {"model": MODEL, "input": "Hi", "background": True, "stream": True}
    first, second = [await client.post(PATH, json=asked, headers={"Idempotency-Key": "again"}) for _ in range(2)]
    assert first.text == second.text
    assert "response.completed" in first.text


async def test_the_best_of_several_is_made_in_the_background_too(openai: AsyncOpenAI) -> None:
    response = await begin(openai, "Hi", extra_body={"best_of": 2}, temperature=1)
    completed = await once(openai, response.id, "completed")
    assert len(completed.output) == 1


async def test_one_that_is_cut_is_incomplete(openai: AsyncOpenAI) -> None:
    response = await begin(openai, FIVE_SECONDS, max_output_tokens=3)
    assert (await once(openai, response.id, "incomplete")).incomplete_details


async def test_an_unfinished_one_is_not_continued(openai: AsyncOpenAI) -> None:
    response = await begin(openai)
    with pytest.raises(BadRequestError, match="still being generated"):
        await openai.responses.create(model=MODEL, input="And?", previous_response_id=response.id)
    await openai.responses.cancel(response.id)


async def test_what_is_not_stored_cannot_be_made_in_the_background(client: AsyncClient) -> None:
    asked = {"model": MODEL, "input": "Hi", "background": True, "store": False}
    refused(await client.post(PATH, json=asked), 400, param="background")
