"""A multipart upload as a stream: the one file's bytes as they come, and the form fields around it."""

from collections.abc import AsyncIterator
from email.message import Message

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from app.errors import BadRequest

MAX_FIELD_BYTES = 64 * 1024
MAX_PARTS = 32


class MalformedUpload(BadRequest):
    """The body is not the multipart form that was promised."""


class Upload:
    """Iterate `chunks()` to its end; then `filename` and `fields` are known."""

    def __init__(self, request: Request) -> None:
        kind, options = parse_options_header(request.headers.get("content-type"))
        if kind != b"multipart/form-data" or b"boundary" not in options:
            raise MalformedUpload("Send the file as multipart/form-data, in a part named 'file'.", param="file")
        self.filename: str | None = None
        self.fields: dict[str, str] = {}
        self._request = request
        self._file_bytes: list[bytes] = []
        self._n_parts = 0
        self._finished = False
        self._start_part()
        self._parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._start_part,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file's bytes. Raises MalformedUpload for a broken, empty or truncated form."""
        async for received in self._request.stream():
            try:
                self._parser.write(received)
            except MultipartParseError as error:
                raise MalformedUpload("The multipart body is malformed.") from error
            while self._file_bytes:
                yield self._file_bytes.pop(0)
        if self.filename is None:
            raise MalformedUpload("There is no part named 'file' with a filename in the form.", param="file")
        if not self._finished:
            raise MalformedUpload("The upload ended before its last boundary; send it again.")

    # What the parser calls, in the order of the bytes.

    def _start_part(self) -> None:
        self._n_parts += 1
        if self._n_parts > MAX_PARTS:
            raise MalformedUpload(f"The form has more than {MAX_PARTS} parts.")
        self._headers = Message()
        self._name = self._value = b""
        self._field: str | None = None
        self._is_file = False
        self._text = b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if len(self._name) + len(self._value) <= MAX_FIELD_BYTES:
            self._headers[self._name.decode("latin-1")] = self._value.decode("latin-1")
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition"))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = name == "file" and b"filename" in options
        if self._is_file:
            if self.filename is not None:
                raise MalformedUpload("Send one file at a time.", param="file")
            self.filename = options[b"filename"].decode("utf-8", "replace")
        else:
            self._field = name

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._file_bytes.append(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > MAX_FIELD_BYTES:
            raise MalformedUpload(f"A form field is longer than {MAX_FIELD_BYTES} bytes.", param=self._field)

    def _part_end(self) -> None:
        if not self._is_file and self._field is not None:
            self.fields[self._field] = self._text.decode("utf-8", "replace")

    def _end(self) -> None:
        self._finished = True
