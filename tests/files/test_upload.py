"""Uploads that are too large, broken or cut off: refused early, and nothing is left of them."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from httpx import AsyncClient
from sqlalchemy import update

from app.settings import Settings
from app.store.session import Store
from app.store.tables import Org
from tests.asking import jsonl, ok, refused, stored_files, upload
from tests.eventually import eventually
from tests.servers import Server, running_server

pytestmark = pytest.mark.anyio

MAX_BYTES = 100_000
HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
TAIL = b"\r\n--b--\r\n"
FORM = {"content-type": "multipart/form-data; boundary=b"}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """It takes little."""
    limits = {"LOAM_MAX_FILE_BYTES": str(MAX_BYTES), "LOAM_MAX_BODY_BYTES": "10000"}
    with running_server(tmp_path_factory.mktemp("small"), "--simulate", command="serve", **limits) as server:
        yield server


@pytest.fixture
async def client(small: Server) -> AsyncIterator[AsyncClient]:
    """Its organisation has no file."""
    async with AsyncClient(base_url=small.url, headers=small.new_org().headers, timeout=30) as client:
        yield client


async def is_empty(client: AsyncClient) -> bool:
    return not ok(await client.get("/v1/files"))["data"]


async def chunked(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_a_file_of_just_the_limit_is_taken(small: Server, client: AsyncClient) -> None:
    content = jsonl()
    assert (await upload(client, content + b"\n" * (MAX_BYTES - len(content))))["status"] == "processed"


async def test_a_byte_more_is_refused_and_nothing_is_left(small: Server, client: AsyncClient) -> None:
    before = stored_files(small)
    response = await client.post("/v1/files", files={"file": ("a", b"x" * (MAX_BYTES + 1))})
    body = refused(response, 413, param="file")
    assert body["troubleshooting"] == {"max_bytes": MAX_BYTES}
    assert await is_empty(client)
    assert stored_files(small) == before


async def test_a_declared_size_is_refused_before_the_bytes_are_sent(small: Server, client: AsyncClient) -> None:
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: {client.headers['authorization']}\r\n"
        f"Content-Type: {FORM['content-type']}\r\nContent-Length: {10 * MAX_BYTES}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", small.port)
    writer.write(head.encode())
    assert b" 413 " in await asyncio.wait_for(reader.readline(), 10)
    writer.close()


async def test_a_stream_without_a_size_is_refused_when_it_is_too_long(small: Server, client: AsyncClient) -> None:
    before = stored_files(small)
    body = chunked(HEAD, *[b"x" * 20_000] * 6, TAIL)
    refused(await client.post("/v1/files", content=body, headers=FORM), 413, param="file")
    assert await is_empty(client)
    assert stored_files(small) == before


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        HEAD + b"cut",
        b"--b--\r\n",
        HEAD + b"one\r\n" + HEAD + b"two" + TAIL,
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nno filename' + TAIL,
        b'--b\r\nContent-Disposition: form-data; name="other"; filename="a"\r\n\r\nx' + TAIL,
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n' + b"x" * 70_000 + TAIL,
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n' * 40 + HEAD + b"x" + TAIL,
    ],
    ids=["nothing", "garbage", "cut", "empty form", "two", "no name", "another part", "long field", "many parts"],
)
async def test_a_malformed_form_is_a_400_and_leaves_nothing(small: Server, client: AsyncClient, body: bytes) -> None:
    before = stored_files(small)
    response = await client.post("/v1/files", content=body, headers=FORM)
    assert response.status_code == 400, response.text
    refused(response, 400, param=response.json()["error"]["param"])
    assert await is_empty(client)
    assert stored_files(small) == before


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data", "text/plain", ""])
async def test_what_is_no_form_is_a_400(client: AsyncClient, content_type: str) -> None:
    refused(await client.post("/v1/files", content=b"{}", headers={"content-type": content_type}), 400, param="file")


async def test_an_unknown_purpose_is_refused_and_its_bytes_are_gone(small: Server, client: AsyncClient) -> None:
    before = stored_files(small)
    response = await client.post("/v1/files", data={"purpose": "assistants"}, files={"file": ("a", b"x")})
    refused(response, 400, param="purpose")
    assert stored_files(small) == before


async def test_a_client_that_hangs_up_in_the_middle_leaves_nothing(small: Server, client: AsyncClient) -> None:
    before = stored_files(small)
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: {client.headers['authorization']}\r\n"
        f"Content-Type: {FORM['content-type']}\r\nContent-Length: 50000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", small.port)) as connection:
        connection.sendall(head.encode() + HEAD + b"half of it")
        await eventually(lambda: stored_files(small) - before)  # the server writes
    await eventually(lambda: stored_files(small) == before)
    assert await is_empty(client)
    assert "Traceback" not in small.log


async def test_a_repeated_upload_with_the_same_key_is_one_file(small: Server, client: AsyncClient) -> None:
    key = {"Idempotency-Key": "once"}
    first, second = [
        ok(await client.post("/v1/files", files={"file": ("a.jsonl", jsonl())}, headers=key)) for _ in range(2)
    ]
    assert first == second
    assert ok(await client.get("/v1/files"))["data"] == [first]
    other = await client.post("/v1/files", files={"file": ("b.jsonl", jsonl())}, headers=key)
    refused(other, 409, param="Idempotency-Key")
    assert other.headers["x-should-retry"] == "false"
    assert {path.name for path in stored_files(small)} >= {first["id"]}
    assert not [path for path in stored_files(small) if path.suffix]


@pytest.fixture
async def tight(small: Server) -> AsyncIterator[AsyncClient]:
    """Of an organisation that may keep one file, of a thousand bytes."""
    org = small.new_org()
    store = Store(Settings(data_dir=small.data_dir).store_url)
    async with store.begin() as session:
        await session.execute(update(Org).where(Org.id == org.id).values(max_stored_files=1, max_stored_bytes=1000))
    await store.close()
    async with AsyncClient(base_url=small.url, headers=org.headers, timeout=30) as client:
        yield client


async def test_what_an_organisation_has_no_room_for_is_refused_before_it_is_sent(
    small: Server, tight: AsyncClient
) -> None:
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: {tight.headers['authorization']}\r\n"
        f"Content-Type: {FORM['content-type']}\r\nContent-Length: {MAX_BYTES}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", small.port)
    writer.write(head.encode())
    assert b"storage_limit_reached" in await asyncio.wait_for(reader.read(), 10)
    writer.close()


async def test_a_stream_is_refused_where_it_passes_the_room_that_is_left(small: Server, tight: AsyncClient) -> None:
    before = stored_files(small)
    body = chunked(HEAD, b"x" * 1000, TAIL)
    exactly = ok(await tight.post("/v1/files", content=body, headers=FORM, params={"purpose": "fine-tune-results"}))
    ok(await tight.delete(f"/v1/files/{exactly['id']}"))
    told = refused(
        await tight.post("/v1/files", content=chunked(HEAD, b"x" * 1001, TAIL), headers=FORM),
        413,
        param="file",
        code="storage_limit_reached",
    )
    assert told["troubleshooting"] == {"max_files": 1, "max_bytes": 1000, "files": 0, "bytes": 0}
    assert stored_files(small) == before


async def test_a_repeat_of_the_upload_that_took_the_last_room_finds_it(tight: AsyncClient) -> None:
    key, file = {"Idempotency-Key": "once"}, {"file": ("a.jsonl", jsonl()[:900])}
    first, second = [ok(await tight.post("/v1/files", files=file, headers=key)) for _ in range(2)]
    assert first == second
    refused(await tight.post("/v1/files", files=file), 413, param="file", code="storage_limit_reached")


async def test_other_bodies_have_a_limit_too(client: AsyncClient) -> None:
    large = b'{"x": "' + b"x" * 10_000 + b'"}'
    for path in ("/v1/fine_tuning/jobs", "/v1/chat/completions", "/v1/responses"):
        json = {"content-type": "application/json"}
        refused(await client.post(path, content=large, headers=json), 413)
        refused(await client.post(path, content=chunked(large[:6000], large[6000:]), headers=json), 413)
        packed = await client.post(path, content=b"x", headers={**json, "content-encoding": "gzip"})
        refused(packed, 415)
