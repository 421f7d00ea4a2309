"""Logs of engines: kept for a while, never without end, and read from where it matters."""

from pathlib import Path

from app.engines.engine_log import EngineLog


def write(path: Path, text: str) -> EngineLog:
    path.write_text(text)
    return EngineLog(path)


def test_the_logs_of_earlier_starts_are_kept_for_a_while(tmp_path: Path) -> None:
    for start in range(4):
        log = EngineLog(tmp_path / "x.log")
        log.rotate()
        log.path.write_text(f"start {start}")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "x.log": "start 3",
        "x.log.1": "start 2",
        "x.log.2": "start 1",
    }


def test_a_log_that_has_become_too_long_begins_anew_below_the_hands_of_who_writes_it(tmp_path: Path) -> None:
    log = EngineLog(tmp_path / "x.log")
    with log.path.open("a") as writer:
        writer.write("much\n" * 20)
        writer.flush()
        log.bound(100)
        assert log.path.read_text() != ""
        log.bound(99)
        writer.write("more\n")
    assert log.path.read_text() == "more\n"
    assert (tmp_path / "x.log.1").read_text() == "much\n" * 20


def test_the_tail_is_what_was_said_last_that_means_something(tmp_path: Path) -> None:
    said = [f"line {n}" for n in range(40)]
    noise = [
        "nanobind: leaked 4 instances!",
        ' - leaked type "x"',
        " - ... skipped remainder",
        "",
        "See https://nanobind",
    ]
    log = write(tmp_path / "x.log", "\n".join([*said, *noise]))
    assert log.tail() == said[-30:]
    assert write(tmp_path / "x.log", "shards: 0%\rshards: 50%\r\n\xff").tail() == ["shards: 0%", "shards: 50%", "\xff"]


def test_a_log_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    log = EngineLog(tmp_path / "x.log")
    log.bound()
    assert (log.tail(), log.cause(), log.progress().fraction) == ([], None, 0.0)


def test_the_cause_is_the_first_error_and_not_what_followed_from_it(tmp_path: Path) -> None:
    lines = """\
(Worker pid=9) ERROR 11-24 [multiproc_executor.py:900]     with safe_open(st_file, framework="pt") as f:
(Worker pid=9) ERROR 11-24 [multiproc_executor.py:900] safetensors_rust.SafetensorError: header too large
(EngineCore pid=8) ERROR 11-24 [core.py:1510] Exception: WorkerProc initialization failed due to an exception
RuntimeError: Engine core initialization failed. See root cause above.
"""
    assert write(tmp_path / "x.log", lines).cause() == "safetensors_rust.SafetensorError: header too large"
