"""The `openai` package, unmodified, against a running server."""

from collections.abc import AsyncIterator, Iterator

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI
from pydantic import BaseModel

from tests.asking import MODEL, TEN_STEPS, jsonl
from tests.eventually import until
from tests.servers import Server


class City(BaseModel):
    name: str
    country: str


@pytest.fixture
def openai(simulated: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{simulated.url}/v1", api_key=simulated.new_org().key) as client:
        yield client


@pytest.fixture
async def aopenai(simulated: Server) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{simulated.url}/api/v1", api_key=simulated.new_org().key) as client:
        yield client


def test_files_come_and_go(openai: OpenAI) -> None:
    files = [openai.files.create(file=("rows.jsonl", jsonl()), purpose="fine-tune") for _ in range(3)]
    assert openai.files.wait_for_processing(files[0].id).status == "processed"
    assert openai.files.content(files[0].id).read() == jsonl()
    assert openai.files.retrieve(files[0].id) == files[0]
    assert [file.id for file in openai.files.list(limit=1)] == [file.id for file in reversed(files)]
    for file in files:
        assert openai.files.delete(file.id).deleted
    with pytest.raises(NotFoundError):
        openai.files.retrieve(files[0].id)


def test_a_fine_tune_from_the_file_to_the_trained_answer(openai: OpenAI) -> None:
    file = openai.files.create(file=("rows.jsonl", jsonl()), purpose="fine-tune")
    job = openai.fine_tuning.jobs.create(
        model=MODEL,
        training_file=file.id,
        suffix="mine",
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 1}}},
    )
    assert until(lambda: openai.fine_tuning.jobs.retrieve(job.id).status == "succeeded")
    events = list(openai.fine_tuning.jobs.list_events(job.id, limit=3))  # the client pages
    assert len({event.id for event in events}) == len(events) > 10
    assert events[0].message == "The job has successfully completed"
    assert len(openai.fine_tuning.jobs.checkpoints.list(job.id).data) == 1
    assert job.id in [each.id for each in openai.fine_tuning.jobs.list(limit=1)]
    tuned = openai.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
    assert tuned
    answer = openai.chat.completions.create(model=tuned, messages=[{"role": "user", "content": "Question 5"}])
    assert answer.choices[0].message.content == "Answer 5"
    assert tuned in [model.id for model in openai.models.list()]
    assert openai.models.retrieve(tuned).owned_by == job.organization_id
    assert openai.models.delete(tuned).deleted
    with pytest.raises(NotFoundError, match="does not exist"):
        openai.models.retrieve(tuned)


def test_a_job_can_be_cancelled_once(openai: OpenAI) -> None:
    file = openai.files.create(file=("rows.jsonl", jsonl()), purpose="fine-tune")
    job = openai.fine_tuning.jobs.create(model=MODEL, training_file=file.id, extra_body={"hyperparameters": TEN_STEPS})
    assert openai.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    with pytest.raises(BadRequestError, match="cancelled"):
        openai.fine_tuning.jobs.cancel(job.id)


def test_chat_parses_into_a_type(openai: OpenAI) -> None:
    answer = openai.chat.completions.parse(
        model=MODEL, messages=[{"role": "user", "content": "Where?"}], response_format=City
    )
    assert isinstance(answer.choices[0].message.parsed, City)


def test_chat_streams_with_the_helper(openai: OpenAI) -> None:
    with openai.chat.completions.stream(
        model=MODEL, messages=[{"role": "user", "content": "Hello there"}], stream_options={"include_usage": True}
    ) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    assert text == final.choices[0].message.content
    assert final.usage
    assert final.usage.completion_tokens > 0


def test_responses_parse_into_a_type(openai: OpenAI) -> None:
    assert isinstance(openai.responses.parse(model=MODEL, input="Where?", text_format=City).output_parsed, City)


def test_responses_are_kept_continued_and_deleted(openai: OpenAI) -> None:
    first = openai.responses.create(model=MODEL, input="Hello there", metadata={"k": "v"})
    assert "Hello there" in first.output_text
    assert openai.responses.retrieve(first.id).output_text == first.output_text
    second = openai.responses.create(model=MODEL, input="And more", previous_response_id=first.id)
    assert second.usage
    assert first.usage
    assert second.usage.input_tokens > first.usage.input_tokens
    [item] = list(openai.responses.input_items.list(first.id))
    assert item.type == "message"
    openai.responses.delete(first.id)
    with pytest.raises(NotFoundError):
        openai.responses.retrieve(first.id)
    with pytest.raises(BadRequestError) as refusal:
        openai.responses.create(model=MODEL, input="And?", previous_response_id=first.id)
    assert refusal.value.code == "previous_response_not_found"


def test_a_response_that_is_not_to_be_kept_is_not(openai: OpenAI) -> None:
    response = openai.responses.create(model=MODEL, input="Hello there", store=False)
    with pytest.raises(NotFoundError):
        openai.responses.retrieve(response.id)


def test_responses_stream_with_the_helper(openai: OpenAI) -> None:
    with openai.responses.stream(model=MODEL, input="Hello there") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text
    assert openai.responses.retrieve(final.id).output_text == text


def test_a_response_whose_engine_dies_is_failed(openai: OpenAI) -> None:
    events = list(openai.responses.create(model="Qwen/Qwen3-8B", input="[simulate: crash]", stream=True))
    assert events[-1].type == "response.failed"
    assert openai.responses.retrieve(events[-1].response.id).status == "failed"


@pytest.mark.anyio
async def test_the_asynchronous_client_does_the_same(aopenai: AsyncOpenAI) -> None:
    file = await aopenai.files.create(file=("rows.jsonl", jsonl()), purpose="fine-tune")
    assert [each.id async for each in aopenai.files.list()] == [file.id]
    stream = await aopenai.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hello there"}], stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert "Hello there" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    async with aopenai.responses.stream(model=MODEL, input="Hello there") as events:
        assert (await events.get_final_response()).status == "completed"
    with pytest.raises(NotFoundError, match="does not exist"):
        await aopenai.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "Hi"}])
