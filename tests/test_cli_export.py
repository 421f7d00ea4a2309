"""`loam export`, on what a simulated server has trained."""

import subprocess
import sys
from pathlib import Path

import httpx
import orjson
import pytest

from tests.asking import JOBS, MODEL, TEN_STEPS, jsonl, ok
from tests.command import loam
from tests.eventually import until
from tests.servers import Server


@pytest.fixture(scope="module")
def name(simulated: Server) -> str:
    """A fine-tune."""
    with httpx.Client(base_url=simulated.url, headers=simulated.new_org().headers, timeout=30) as client:
        file_id = ok(client.post("/v1/files", files={"file": ("rows.jsonl", jsonl())}))["id"]
        body = {"model": MODEL, "training_file": file_id, "hyperparameters": TEN_STEPS}
        url = f"{JOBS}/{ok(client.post(JOBS, json=body))['id']}"
        return until(lambda: str(ok(client.get(url))["fine_tuned_model"] or ""))


def export(server: Server, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return loam(server.env, "export", *arguments, str(folder))


def failed(done: subprocess.CompletedProcess[str], says: str) -> None:
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_the_adapter_and_its_checkpoints_are_exported(simulated: Server, name: str, tmp_path: Path) -> None:
    for number, wanted in enumerate([name, name.upper(), f"{name}:ckpt-step-10"]):
        folder = tmp_path / str(number)
        assert export(simulated, wanted, folder=folder).returncode == 0
        config = orjson.loads((folder / "adapter_config.json").read_bytes())
        assert config["base_model_name_or_path"] == MODEL
        assert (folder / "adapter_model.safetensors").exists()
        assert (folder / "tokenizer.json").exists()


def test_what_cannot_be_exported_is_told_in_a_sentence(
    simulated: Server, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    failed(export(simulated, "ft:nothing", folder=folder), "does not exist")
    failed(export(simulated, MODEL, folder=folder), "does not exist")
    failed(export(simulated, f"{name}:ckpt-step-3", folder=folder), "does not exist")
    failed(export(simulated, name, folder=tmp_path), "exists already")
    monkeypatch.setitem(sys.modules, "torch", None)  # which Python does not find then
    failed(export(simulated, name, "--merged", folder=folder), "Merging needs torch")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.training
def test_a_merge_that_fails_leaves_nothing(simulated: Server, name: str, tmp_path: Path) -> None:
    failed(export(simulated, name, "--merged", folder=tmp_path / "model"), "could not be merged")
    assert list(tmp_path.iterdir()) == []
