"""Ids: in the order in which they were made, and never twice."""

from concurrent.futures import ThreadPoolExecutor

from app.ids import new_id


def test_ids_sort_by_when_they_were_made() -> None:
    made = [new_id("req") for _ in range(5000)]
    assert made == sorted(made)


def test_no_two_are_alike_although_threads_make_them_at_once() -> None:
    with ThreadPoolExecutor(4) as threads:
        made = [*threads.map(lambda _: new_id("job"), range(5000))]
    assert len(set(made)) == len(made)


def test_an_id_is_its_prefix_and_a_ulid_with_the_separator_that_openai_uses() -> None:
    for prefix, start in (("file", "file-"), ("ftjob", "ftjob-"), ("resp", "resp_")):
        name = new_id(prefix)
        assert name.startswith(start)
        assert len(name) == len(start) + 26
        assert set(name[len(start) :]) <= set("0123456789abcdefghjkmnpqrstvwxyz")
