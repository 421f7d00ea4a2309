"""A training file is judged line by line, and a wrong one is told in words that help."""

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.files.training_file import MAX_COUNTED, TrainingFileReport, check

CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "soil"}'}}
USER = {"role": "user", "content": "What is loam?"}
ANSWER = {"role": "assistant", "content": "A soil of sand, silt and clay."}
ROW: dict[str, Any] = {"messages": [USER, ANSWER]}
LINE = orjson.dumps(ROW)


def checked(tmp_path: Path, content: bytes, **limits: int) -> TrainingFileReport:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    return check(path, **limits)


def told(report: TrainingFileReport) -> str:
    return report.summary() or ""


GOOD_FILES = {
    "no last newline": LINE + b"\n" + LINE,
    "CRLF": LINE + b"\r\n" + LINE + b"\r\n",
    "blank lines": b"\n\n" + LINE + b"\n \t\n" + LINE + b"\n\r\n\n",
    "BOM": b"\xef\xbb\xbf" + LINE + b"\n" + LINE,
    "BOM on a blank line": b"\xef\xbb\xbf\n" + LINE + b"\n" + LINE,
    "blanks around the object": b"  " + LINE + b"  \n" + LINE,
}


@pytest.mark.parametrize("content", GOOD_FILES.values(), ids=GOOD_FILES.keys())
def test_a_good_file_is_valid(tmp_path: Path, content: bytes) -> None:
    report = checked(tmp_path, content)
    assert report.is_valid
    assert report.n_rows == 2


PRETTY = json.dumps(ROW, indent=2).encode()
FOREIGN_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "no rows"),
    "only newlines": (b"\n\r\n \n", "no rows"),
    "only a BOM": (b"\xef\xbb\xbf", "no rows"),
    "gzip": (gzip.compress(LINE + b"\n" + LINE), "gzip"),
    "zip": (b"PK\x03\x04" + bytes(100), "zip"),
    "parquet": (b"PAR1" + bytes(100) + b"\n" * 60, "Parquet"),
    "UTF-16": ((LINE + b"\n").decode().encode("utf-16") * 3, "UTF-16"),
    "UTF-16 without BOM": ((LINE + b"\n").decode().encode("utf-16-le") * 3, "UTF-16"),
    "UTF-16 big-endian without BOM": ((LINE + b"\n").decode().encode("utf-16-be") * 3, "UTF-16"),
    "pretty-printed objects": (PRETTY + b"\n" + PRETTY + b"\n", "over several lines"),
    "pretty-printed array": (json.dumps([ROW, ROW], indent=2).encode(), "over several lines"),
    "an array of lines": (b"[\n" + LINE + b",\n" + LINE + b"\n]\n", "over several lines"),
    "an array": (b"[" + LINE + b", " + LINE + b"]", "must be an object (got list)"),
    "CSV": (b"prompt,completion\nhi,hello\nbye,see you\n", "CSV"),
    "TSV": (b"prompt\tcompletion\nhi\thello\n", "CSV"),
    "quoted CSV": (b'"prompt","completion"\n"hi","hello"\n', "CSV"),
}


@pytest.mark.parametrize(("content", "message"), FOREIGN_FILES.values(), ids=FOREIGN_FILES.keys())
def test_a_file_of_another_kind_is_one_problem(tmp_path: Path, content: bytes, message: str) -> None:
    report = checked(tmp_path, content)
    assert report.problems.count == len(report.problems.first) == 1
    assert told(report).startswith("Line 1: ")
    assert message in told(report)


def test_a_bad_first_line_does_not_hide_the_others(tmp_path: Path) -> None:
    report = checked(tmp_path, b"Sure, here you are:\n" + LINE + b"\nbad\n" + LINE)
    assert [problem.line for problem in report.problems.first] == [1, 3]
    assert told(report).endswith("(and 1 more problem)")


def test_one_bad_line_in_five_thousand_is_found(tmp_path: Path) -> None:
    lines = [LINE] * 5000
    lines[4321] = b'{"messages": [{"role": "user", "content": 4}]}'
    report = checked(tmp_path, b"\n".join(lines))
    assert report.n_rows == 5000
    assert told(report) == ("Line 4322: messages[0].content must be a string or a list of text parts (got number)")


def test_at_most_fifty_problems_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    report = checked(tmp_path, b'{"messages": [{"role": "user", "content": 4}]}\n' * 300)
    assert (len(report.problems.first), report.problems.count) == (50, 300)
    assert told(report).endswith("(and 299 more problems)")
    assert sum(len(problem.message) for problem in report.problems.first) < 8_000


def test_a_file_that_is_wrong_all_through_is_not_read_to_its_end(tmp_path: Path) -> None:
    report = checked(tmp_path, b"{}\n" * (MAX_COUNTED + 500))
    assert (report.n_rows, report.problems.count) == (MAX_COUNTED, MAX_COUNTED)
    assert "at least 9999 more" in told(report)


def test_a_line_over_the_limit_is_a_problem_and_the_next_ones_are_read(tmp_path: Path) -> None:
    long = orjson.dumps({"messages": [USER, {**ANSWER, "content": "x" * 5000}]})
    report = checked(tmp_path, b"\n".join([long, LINE, long, b"bad", LINE]), max_line_bytes=1000)
    assert [problem.line for problem in report.problems.first] == [1, 3, 4]
    assert "longer than the 1,000 bytes" in told(report)
    assert report.n_rows == 5


@pytest.mark.parametrize("spare", [-1, 0, 1])
def test_the_limit_counts_a_line_without_its_newline(tmp_path: Path, spare: int) -> None:
    report = checked(tmp_path, (LINE + b"\n") * 3, max_line_bytes=len(LINE) + spare)
    assert report.is_valid is (spare >= 0)
    assert report.n_rows == 3


def peak_of_check(path: Path) -> int:
    tracemalloc.start()
    try:
        check(path, max_line_bytes=100_000)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    small, large = tmp_path / "small.jsonl", tmp_path / "large.jsonl"
    small.write_bytes(LINE + b"\n")
    large.write_bytes(b"".join(LINE[:-1] + b', "n": %d}\n' % n for n in range(50_000)) + b"x" * 5_000_000)
    assert peak_of_check(large) < peak_of_check(small) + 3_000_000


def test_repeated_empty_and_long_rows_are_warned_of_apart(tmp_path: Path) -> None:
    other = orjson.dumps({"messages": [USER, {"role": "assistant", "weight": 0}, USER, ANSWER]})
    long = orjson.dumps({"messages": [USER, {**ANSWER, "content": "loam " * 5000}]})
    report = checked(tmp_path, b"\n".join([LINE, b"", LINE, other, long, LINE]))
    assert report.is_valid
    assert [(warning.line, warning.message[:30]) for warning in report.warnings.first] == [
        (3, "the same row as line 1"),
        (4, "messages[1] is an empty assist"),
        (5, "about 6,270 tokens, more than "),
        (6, "the same row as line 3"),
    ]
    assert told(report) == "Usable, but: Line 3: the same row as line 1 (and 3 more warnings)"


def test_at_most_fifty_warnings_are_listed_and_the_file_is_read_to_its_end(tmp_path: Path) -> None:
    report = checked(tmp_path, (LINE + b"\n") * (MAX_COUNTED + 500))
    assert (len(report.warnings.first), report.warnings.count) == (50, MAX_COUNTED + 499)
    assert report.n_rows == MAX_COUNTED + 500


def test_a_line_full_of_tool_results_is_checked_in_linear_time(tmp_path: Path) -> None:
    calls = [{**CALL, "id": f"call_{i}"} for i in range(20_000)]
    asking = {"role": "assistant", "tool_calls": calls}
    results = [{"role": "tool", "tool_call_id": f"call_{i}", "content": ""} for i in range(20_000)]
    line = orjson.dumps({"messages": [USER, asking, *results]})
    assert checked(tmp_path, line).is_valid
