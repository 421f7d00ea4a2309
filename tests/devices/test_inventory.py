"""What this host has."""

from pathlib import Path

import pytest

from app.catalog.spec import GpuChoice
from app.devices.inventory import WrongDevices, as_choices, declared, find_devices, type_of
from app.settings import Settings
from tests.rows import CATALOG

TYPES = ["CPU", "A10G", "L40S", "A100", "H100", "H200", "B200"]


@pytest.mark.parametrize(
    ("product", "type_"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "GEFORCERTX4090"),
        ("Tesla T4", "TESLAT4"),
    ],
)
def test_a_product_is_known_by_the_name_of_its_type(product: str, type_: str) -> None:
    assert type_of(product, TYPES) == type_


def test_what_is_declared_is_believed(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, devices=["A100:2", "cpu"], simulate=True)
    assert as_choices(find_devices(settings, CATALOG)) == [
        GpuChoice(type="A100", count=2),
        GpuChoice(type="CPU", count=1),
    ]


def test_a_simulated_host_has_every_type_of_the_catalog(tmp_path: Path) -> None:
    devices = find_devices(Settings(data_dir=tmp_path, simulate=True), CATALOG)
    assert {device.type for device in devices} == {"CPU", "A100"}
    assert len({device.name for device in devices}) == len(devices)


def test_no_declared_device_is_no_device() -> None:
    assert declared([]) == []


def test_declared_devices_are_numbered_as_cuda_numbers_them() -> None:
    devices = declared(["A100:2", "CPU", "L40S", "A100"])
    assert [(d.type, d.index) for d in devices] == [("A100", 0), ("A100", 1), ("CPU", 0), ("L40S", 2), ("A100", 3)]
    assert len({device.name for device in devices}) == 5


@pytest.mark.parametrize("text", ["T4", "A100:0", "A100:x", "A100:", "", "A100:-1", "2"])
def test_a_declared_device_that_cannot_be_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(WrongDevices, match=r"LOAM_DEVICES: .*CPU, A100"):
        find_devices(Settings(data_dir=tmp_path, devices=["A100:2", text]), CATALOG)
