"""Tables as Markdown, and the facts beside them."""

from pathlib import Path

from bench.machine import cpu_model
from bench.show import markdown, write


def test_a_table_has_words_on_the_left_and_numbers_on_the_right() -> None:
    assert markdown(["case", "figure", "loam"], [["whole", "requests/s", "5,000"]]) == (
        "| case | figure | loam |\n| --- | --- | ---: |\n| whole | requests/s | 5,000 |\n"
    )


def test_a_file_has_the_head_the_facts_and_the_table(tmp_path: Path) -> None:
    file = tmp_path / "results" / "x.md"
    write(file, "# Head", ["a", "b"], [["1", "2"]], {"date": "today"})
    assert file.read_text() == "# Head\n\n- date: today\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n"


def test_the_cpu_is_named_as_the_kernel_does() -> None:
    assert cpu_model("processor\t: 0\nmodel name\t: AMD EPYC\nmodel name\t: other\n") == "AMD EPYC"
    assert cpu_model("Features : fp\n")
