"""The five routes of /files."""

import hashlib
from typing import Any
from urllib.parse import quote

import pytest
from httpx import AsyncClient

from tests.asking import JOBS, MODEL, jsonl, ok, refused, upload
from tests.servers import Server

pytestmark = pytest.mark.anyio

ROWS = jsonl()


async def test_an_uploaded_file_comes_back_byte_for_byte(client: AsyncClient) -> None:
    file = await upload(client, ROWS)
    assert file["id"].startswith("file-")
    assert (file["object"], file["bytes"], file["filename"]) == ("file", len(ROWS), "rows.jsonl")
    assert (file["purpose"], file["status"], file["status_details"]) == ("fine-tune", "processed", None)
    assert file["sha256"] == hashlib.sha256(ROWS).hexdigest()
    assert ok(await client.get(f"/v1/files/{file['id']}")) == file
    response = await client.get(f"/v1/files/{file['id']}/content")
    assert response.content == ROWS
    assert int(response.headers["content-length"]) == len(ROWS)
    assert response.headers["content-disposition"] == 'attachment; filename="rows.jsonl"'


async def test_a_part_of_a_file_can_be_had(client: AsyncClient) -> None:
    url = f"/v1/files/{(await upload(client, ROWS))['id']}/content"
    response = await client.get(url, headers={"Range": "bytes=5-9"})
    assert (response.status_code, response.content) == (206, ROWS[5:10])
    assert response.headers["content-range"] == f"bytes 5-9/{len(ROWS)}"
    assert (await client.get(url, headers={"Range": "bytes=-3"})).content == ROWS[-3:]
    assert (await client.get(url, headers={"Range": f"bytes={len(ROWS)}-"})).status_code == 416


@pytest.mark.parametrize("purpose", ["fine-tune", "sft_training", "validation", "fine-tune-results"])
@pytest.mark.parametrize("place", ["form", "query"])
async def test_the_purpose_comes_by_form_or_by_query(client: AsyncClient, purpose: str, place: str) -> None:
    given = {"data" if place == "form" else "params": {"purpose": purpose}}
    file = ok(await client.post("/v1/files", files={"file": ("a.jsonl", ROWS)}, **given))  # type: ignore[arg-type]
    assert file["purpose"] == purpose


async def test_the_purpose_is_fine_tune_when_none_is_given_and_may_come_after_the_file(client: AsyncClient) -> None:
    assert ok(await client.post("/v1/files", files={"file": ("a.jsonl", ROWS)}))["purpose"] == "fine-tune"
    parts: Any = [("file", ("a.jsonl", ROWS)), ("purpose", (None, "validation"))]
    assert ok(await client.post("/v1/files", files=parts))["purpose"] == "validation"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\rows.jsonl", "rows.jsonl"),
        ("Zeilen für Ümläute.jsonl", "Zeilen für Ümläute.jsonl"),
        ("行.jsonl", "行.jsonl"),
        ("...", "file"),
        ("a" * 400, "a" * 255),
    ],
)
async def test_a_filename_is_a_name_and_never_a_path(client: AsyncClient, sent: str, kept: str) -> None:
    file = ok(await client.post("/v1/files", files={"file": (sent, ROWS)}))
    assert file["filename"] == kept
    response = await client.get(f"/v1/files/{file['id']}/content")
    assert response.content == ROWS
    assert quote(kept) in response.headers["content-disposition"]


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"", 1, "no rows"),
        (b"\n\n", 1, "no rows"),
        (b"not json\n", 1, "Line 1"),
        (ROWS + b'{"messages": []}\n', 11, "messages"),
        (ROWS + b'\n{"messages": [{"role": "user", "content": 5}]}\n', 12, "messages[0].content"),
        (b"\x1f\x8b\x08\x00", 1, "gzip"),
        ("{}".encode("utf-16"), 1, "UTF-16"),
    ],
    ids=["empty", "blank", "no json", "no messages", "a number", "gzip", "utf-16"],
)
async def test_a_bad_training_file_says_where_and_why_and_trains_nothing(
    client: AsyncClient, content: bytes, line: int, words: str
) -> None:
    file = await upload(client, content)
    assert file["status"] == "error"
    assert words in file["status_details"]
    response = await client.post(JOBS, json={"model": MODEL, "training_file": file["id"]})
    body = refused(response, 400, param="training_file", code="invalid_training_file")
    assert f"Line {line}: " in body["detail"]
    assert body["troubleshooting"]["problems"][0]["line"] == line
    assert len(response.content) < 10_000
    assert ok(await client.get(JOBS))["data"] == []


async def test_problems_are_counted_in_all_and_fifty_of_them_told(client: AsyncClient) -> None:
    file = await upload(client, b'{"messages": [{"role": "user", "content": 5}]}\n' * 300)
    response = await client.post(JOBS, json={"model": MODEL, "training_file": file["id"]})
    help_ = refused(response, 400, param="training_file", code="invalid_training_file")["troubleshooting"]
    assert (len(help_["problems"]), help_["n_problems"]) == (50, 300)
    assert len(response.content) < 10_000


async def test_a_file_with_warnings_can_be_trained_on_and_tells_of_them(client: AsyncClient) -> None:
    file = await upload(client, ROWS + ROWS[: ROWS.index(b"\n")])
    assert (file["status"], file["status_details"]) == ("processed", "Usable, but: Line 11: the same row as line 1")
    ok(await client.post(JOBS, json={"model": MODEL, "training_file": file["id"]}))


async def test_a_bad_validation_file_is_told_as_such(client: AsyncClient) -> None:
    good, bad = (await upload(client))["id"], (await upload(client, b"{}\n"))["id"]
    response = await client.post(JOBS, json={"model": MODEL, "training_file": good, "validation_file": bad})
    refused(response, 400, param="validation_file", code="invalid_training_file")


async def test_results_cannot_be_trained_on(client: AsyncClient) -> None:
    file = await upload(client, purpose="fine-tune-results")
    response = await client.post(JOBS, json={"model": MODEL, "training_file": file["id"]})
    refused(response, 400, param="training_file", code="invalid_training_file")


async def test_a_deleted_file_is_gone_with_its_bytes(simulated: Server, client: AsyncClient) -> None:
    file = await upload(client)
    path = simulated.data_dir / "files" / file["id"]
    assert path.exists()
    assert ok(await client.delete(f"/v1/files/{file['id']}")) == {"id": file["id"], "object": "file", "deleted": True}
    assert not path.exists()
    for method, end in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        response = await client.request(method, f"/v1/files/{file['id']}{end}")
        refused(response, 404, param="file_id", code="file_not_found")
    response = await client.post(JOBS, json={"model": MODEL, "training_file": file["id"]})
    refused(response, 404, param="training_file", code="file_not_found")
    assert ok(await client.get("/v1/files"))["data"] == []


async def test_files_are_listed_by_purpose(client: AsyncClient) -> None:
    wanted = await upload(client, purpose="validation")
    await upload(client)
    assert ok(await client.get("/v1/files", params={"purpose": "validation"}))["data"] == [wanted]


async def test_the_word_for_a_good_file_depends_on_the_prefix(client: AsyncClient) -> None:
    file_id = (await upload(client))["id"]
    for prefix, word in (("/api/v1", "processed"), ("/v1", "processed"), ("/api", "ready")):
        assert ok(await client.get(f"{prefix}/files/{file_id}"))["status"] == word
        assert ok(await client.get(f"{prefix}/files"))["data"][0]["status"] == word
        posted = ok(await client.post(f"{prefix}/files", files={"file": ("a.jsonl", ROWS)}))
        assert posted["status"] == word
        bad = ok(await client.post(f"{prefix}/files", files={"file": ("a.jsonl", b"{}")}))
        assert bad["status"] == "error"
        ok(await client.delete(f"{prefix}/files/{posted['id']}"))
        ok(await client.delete(f"{prefix}/files/{bad['id']}"))
