"""A wrong catalog is refused with its file, its line and the reason."""

from pathlib import Path

import pytest

from app.catalog.load import WrongCatalog, load_catalog

GOOD = """\
gpus:
  CPU: {memory_gib: 0, dollars_per_hour: 0.1}
models:
  - id: test/a
    weights: weights
    parameters_billions: 1
    context_length: 2048
    gpus: [CPU]
    dollars_per_million_tokens: {prompt: 1, cached_prompt: 1, completion: 1, training: 1}
"""


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "models.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_weights_beside_the_catalog_come_back_absolute(tmp_path: Path) -> None:
    assert load_catalog(written(tmp_path, GOOD)).models[0].weights == "weights"
    (tmp_path / "weights").mkdir()
    assert load_catalog(written(tmp_path, GOOD)).models[0].weights == str(tmp_path / "weights")


@pytest.mark.parametrize(
    ("wrong", "line", "reason"),
    [
        (GOOD.replace("2048", "many"), 7, "models.0.context_length"),
        (GOOD.replace("[CPU]", "[cpu]"), 8, "models.0.gpus.0"),
        (GOOD.replace("[CPU]", "[H100]"), 1, "H100 is not among"),
        (GOOD.replace("test/a", "../etc"), 4, "models.0.id"),
        (GOOD.replace("prompt: 1,", "prompt: -1,", 1), 9, "dollars_per_million_tokens.prompt"),
        (GOOD + "    colour: blue\n", 10, "models.0.colour"),
        (GOOD + GOOD.partition("models:\n")[2].replace("test/a", "TEST/A"), 4, "listed twice"),
        (GOOD + "  ]\n", 10, ""),
        (GOOD + "\tx: 1\n", 10, ""),
        ("", 1, ""),
        ("just text", 1, ""),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, wrong: str, line: int, reason: str) -> None:
    path = written(tmp_path, wrong)
    with pytest.raises(WrongCatalog) as refused:
        load_catalog(path)
    assert str(refused.value).startswith(f"{path}, line {line}: ")
    assert reason in str(refused.value)


@pytest.mark.parametrize("content", [GOOD.encode("utf-16"), b"\xff\xfe\x00", b"gpus: \x00"])
def test_what_is_no_text_is_told_too(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(WrongCatalog):
        load_catalog(written(tmp_path, content))


def test_a_catalog_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(WrongCatalog, match="No such file"):
        load_catalog(tmp_path / "nowhere.yaml")
