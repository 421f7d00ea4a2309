"""Who runs where."""

import pytest

from bench.cores import CannotPin, Cores


def test_the_gateway_has_the_first_core_and_the_others_have_the_rest() -> None:
    cores = Cores.among({5, 2, 7})
    assert (cores.gateway, cores.others) == (2, (5, 7))
    assert cores.told("gateway", "engine and load") == "gateway on 2; engine and load on 5, 7"
    assert cores.for_gateway(["serve"]) == ["taskset", "-c", "2", "serve"]
    assert cores.for_others(["serve"]) == ["taskset", "-c", "5,7", "serve"]


def test_one_core_is_not_enough() -> None:
    with pytest.raises(CannotPin, match="two cores"):
        Cores.among({0})
