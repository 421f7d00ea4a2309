"""The table of a run."""

from dataclasses import replace

from bench.figures import CPU_A_REQUEST, FIRST_CHUNK, RATE, Case
from bench.load import Asking, Held
from bench.report import cells, headings, notes, rows
from bench.rounds import Results
from tests.bench.runs import NO_ERRORS, QUANTILES, run

ASKING = Asking(connections=4, tokens=16)
CASE = Case("whole", ASKING, (RATE, CPU_A_REQUEST))
STREAMED = Case("streamed", replace(ASKING, stream=True), FIRST_CHUNK[:1])


def results_of(case: Case) -> Results:
    return Results(["straight", "loam", "nginx"], ["nginx"], [case], rounds=1, seconds=1.0)


def table(results: Results) -> list[list[str]]:
    return [cells(results, row, lambda of: of.with_range) for row in rows(results)]


def test_each_figure_is_a_row_with_every_side_and_loam_over_each_peer() -> None:
    results = results_of(CASE)
    results.add("whole", "straight", run(requests=1000))
    results.add("whole", "loam", run(requests=100, cpu_seconds=0.02))
    results.add("whole", "nginx", run(requests=400, cpu_seconds=0.04))
    assert headings(results) == ["case", "figure", "straight", "loam", "nginx", "loam / nginx"]
    assert table(results) == [
        ["whole", "requests/s", "500", "50.0", "200", "0.25"],
        ["whole", "CPU µs / request", "–", "200", "100", "2.00"],
    ]


def test_the_first_chunk_is_told_as_what_it_is_above_straight_in_the_same_round() -> None:
    results = results_of(STREAMED)
    for straight, loam in ((100.0, 350.0), (200.0, 400.0), (150.0, 900.0)):
        results.add("streamed", "straight", run(first_chunk_us={**QUANTILES, "p50": straight}))
        results.add("streamed", "loam", run(first_chunk_us={**QUANTILES, "p50": loam}))
    assert table(results) == [["streamed", "first chunk, added µs, p50", "–", "250 (200..750)", "–", "–"]]


def test_ratios_are_taken_within_a_round() -> None:
    results = results_of(replace(CASE, figures=(RATE,)))
    for nginx, loam in ((100, 50), (1000, 900), (400, 400)):
        results.add("whole", "nginx", run(requests=nginx))
        results.add("whole", "loam", run(requests=loam))
    assert table(results)[0][-1] == "0.90 (0.50..1.00)"


def test_without_straight_nothing_is_added_to_it() -> None:
    results = results_of(STREAMED)
    results.add("streamed", "loam", run(first_chunk_us=QUANTILES))
    assert table(results) == []


def test_a_side_that_was_not_measured_leaves_a_gap_and_a_note() -> None:
    results = results_of(CASE)
    results.add("whole", "loam", run(cpu_seconds=0.02))
    results.missing["nginx"] = "no package nginx"
    assert table(results)[0] == ["whole", "requests/s", "–", "50.0", "–", "–"]
    assert notes(results) == {"not measured: nginx": "no package nginx"}


def test_memory_is_told_whole_and_for_each_stream() -> None:
    results = results_of(CASE)
    results.held["loam"] = Held(streams=1000, bytes_before=50 << 20, bytes_with=150 << 20)
    assert table(results) == [
        ["1,000 open streams", "MiB resident", "–", "150", "–", "–"],
        ["1,000 open streams", "KiB a stream", "–", "102", "–", "–"],
    ]


def test_wrong_answers_are_told_with_the_first() -> None:
    results = results_of(CASE)
    results.add("whole", "loam", run())
    results.add("whole", "loam", run(errors={**NO_ERRORS, "status": 2, "first": "status: 402"}))
    assert notes(results) == {"wrong answers: loam, whole": "2; the first: status: 402"}


def test_streams_that_had_not_begun_are_told() -> None:
    results = results_of(STREAMED)
    results.add("streamed", "loam", run(asking=STREAMED.asking, begun=4))
    assert notes(results) == {}
    results.add("streamed", "loam", run(asking=STREAMED.asking, begun=3))
    assert notes(results) == {"overloaded: loam, streamed": "only 3 streams had begun when the measuring did"}
