"""What this host has."""

from pathlib import Path
from typing import Any

import psutil
import pytest

from app.catalog.spec import GpuChoice
from app.devices.inventory import (
    Use,
    WrongDevices,
    as_choices,
    declared,
    find_devices,
    for_engines,
    for_training,
    is_visible,
    type_of,
)
from app.devices.nvml import Gpu
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
        GpuChoice("A100", 2),
        GpuChoice("CPU", 1),
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


def devices_with(folder: Path, **settings: Any) -> dict[str, Use]:
    found = find_devices(Settings(data_dir=folder, **{"devices": ["A100:4"], **settings}), CATALOG)
    return {device.name.partition("/")[2]: device.use for device in found}


def test_devices_can_be_hidden_or_reserved(tmp_path: Path) -> None:
    uses = devices_with(tmp_path, devices_hidden=[0], devices_for_engines=[1], devices_for_training=[3])
    assert uses == {"A100/1": Use.ENGINES, "A100/2": Use.BOTH, "A100/3": Use.TRAINING}
    devices = find_devices(Settings(data_dir=tmp_path, devices=["A100:3"], devices_for_training=[2]), CATALOG)
    assert [device.index for device in for_engines(devices)] == [0, 1]
    assert [device.index for device in for_training(devices)] == [2, 0, 1]  # its own first


def test_numbers_are_those_of_accelerators_where_there_are_any(tmp_path: Path) -> None:
    uses = devices_with(tmp_path, devices=["CPU:2", "A100:1"], devices_for_training=[0])
    assert uses == {"CPU/0": Use.BOTH, "CPU/1": Use.BOTH, "A100/0": Use.TRAINING}
    assert devices_with(tmp_path, devices=["CPU:2"], devices_hidden=[1]) == {"CPU/0": Use.BOTH}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"devices_hidden": [4]}, r"LOAM_DEVICES_HIDDEN: 4 is none of 0, 1, 2, 3\."),
        ({"devices_for_engines": [1], "devices_for_training": [1]}, r"LOAM_DEVICES_FOR_TRAINING: 1 is named twice\."),
    ],
)
def test_a_number_that_cannot_be_is_named(tmp_path: Path, settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(WrongDevices, match=complaint):
        devices_with(tmp_path, **settings)


def test_a_device_that_does_not_tell_has_the_memory_of_its_type(tmp_path: Path) -> None:
    found = find_devices(Settings(data_dir=tmp_path, devices=["A100", "CPU"]), CATALOG)
    assert [device.memory_bytes for device in found] == [80 << 30, psutil.virtual_memory().total]


@pytest.mark.parametrize(
    ("visible", "indices"),
    [
        (None, [0, 1, 2]),
        ("0,2", [0, 2]),
        (" 1 , 0", [0, 1]),
        ("GPU-bb", [1]),
        ("", []),
        ("-1", []),
        ("GPU-", [0, 1, 2]),
    ],
)
def test_cudas_own_setting_is_respected(visible: str | None, indices: list[int]) -> None:
    gpus = [Gpu(n, uuid, "NVIDIA A100-SXM4-80GB", 0, 0) for n, uuid in enumerate(["GPU-aa1", "GPU-bb2", "GPU-cc3"])]
    assert [gpu.index for gpu in gpus if is_visible(gpu, visible)] == indices


def test_cudas_setting_is_read_under_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    settings = Settings(data_dir=tmp_path)
    assert settings.cuda_visible_devices == "1"
    assert "1" not in settings.as_environment().values()


@pytest.mark.gpu
def test_the_driver_tells_type_and_memory(tmp_path: Path) -> None:
    for device in find_devices(Settings(data_dir=tmp_path), CATALOG):
        assert device.memory_bytes > 1 << 30
