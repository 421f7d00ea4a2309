"""The catalog that ships, and the choice of a GPU from it."""

import pytest

from app.catalog.load import load_catalog
from app.catalog.resolve import WrongGpu, choose_gpu
from app.catalog.spec import GpuChoice
from app.settings import Settings

CATALOG = load_catalog(Settings().catalog)
LARGE = CATALOG.find("qwen/qwen3-32b")
HERE = [GpuChoice("A100", 2), GpuChoice(type="CPU", count=2)]


def test_the_shipped_catalog_has_the_demo_model_with_its_weights() -> None:
    demo = CATALOG.find("LOAM/DEMO")
    assert demo
    assert demo.weights.startswith("/")
    assert demo.gpus[0] == "CPU"
    assert len(CATALOG.models) > 20


@pytest.mark.parametrize(
    ("wanted", "fallback", "chosen"),
    [
        (None, False, "A100:2"),
        ("", False, "A100:2"),
        (" A100 : 2 ", False, "A100:2"),
        ("a100", False, "A100:2"),
        ("A100:2", False, "A100:2"),
        ("H100", True, "A100:2"),
    ],
)
def test_a_gpu_that_is_here_and_fits_is_chosen(wanted: str | None, fallback: bool, chosen: str) -> None:
    assert LARGE
    assert str(choose_gpu(LARGE, wanted, HERE, fallback=fallback)) == chosen


@pytest.mark.parametrize(
    ("wanted", "fallback"),
    [
        ("H100", False),
        ("A100:1", False),
        ("A100:4", False),
        ("A100:3", False),
        ("CPU", True),
        ("T4", True),
        ("A100:", True),
    ],
)
def test_a_gpu_that_is_not_here_or_does_not_fit_is_refused(wanted: str, fallback: bool) -> None:
    assert LARGE
    with pytest.raises(WrongGpu) as refusal:
        choose_gpu(LARGE, wanted, HERE, fallback=fallback)
    assert refusal.value.troubleshooting
    assert refusal.value.troubleshooting["available_gpus"] == ["A100:2", "CPU:2"]


def test_a_model_is_not_split_over_an_odd_number_of_gpus() -> None:
    assert LARGE
    with pytest.raises(WrongGpu, match="A100:3 is none of these"):
        choose_gpu(LARGE, "A100:3", [GpuChoice("A100", 8)], fallback=True)
