"""A trained adapter, taken home: with its base, and merged into it."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.catalog.load import load_catalog
from app.catalog.resolve import AdapterRef
from app.files.storage import Storage
from app.files.zipped import zipped
from app.ids import new_id
from app.jobs.adapter_folder import adapter_members
from app.settings import ROOT
from tests.workers.test_sft import finish_here, make_run
from workers.merge import main

pytestmark = pytest.mark.training

BASE = ROOT / "demo" / "model"
QUESTION = [{"role": "user", "content": "What is number 3?"}]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return Storage(tmp_path_factory.mktemp("merge"))


@pytest.fixture(scope="module")
def trained(storage: Storage) -> AdapterRef:
    job_id = new_id("ftjob")
    run = make_run(storage.run(job_id), n_epochs=2)
    assert finish_here(run) == 0
    return AdapterRef("adapter", job_id, "adapter")


@pytest.fixture(scope="module")
def unzipped(storage: Storage, trained: AdapterRef, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a client has of the route."""
    folder = tmp_path_factory.mktemp("unzipped")
    members = adapter_members(storage, load_catalog(ROOT / "models.yaml"), "loam/demo", trained)
    ZipFile(BytesIO(b"".join(zipped(members)))).extractall(folder)
    return folder


def merge(base: Path, adapter: Path, folder: Path) -> int:
    folder.mkdir()
    return main(str(base), adapter, folder)


def log_probs(model: torch.nn.Module, folder: Path) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        return torch.log_softmax(model.eval()(**ids).logits.float(), dim=-1)  # (1, T, V)


@pytest.fixture(scope="module")
def exact_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base in float32: merged into half of its bits, a difference would be the rounding's."""
    folder = tmp_path_factory.mktemp("base")
    AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).save_pretrained(folder)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(folder)
    return folder


def test_an_adapter_is_loaded_by_peft_as_it_came_and_merged_it_says_the_same(
    unzipped: Path, exact_base: Path, tmp_path: Path
) -> None:
    (tmp_path / "merged").mkdir()
    argv = [sys.executable, "-m", "workers.merge", str(exact_base), str(unzipped), str(tmp_path / "merged")]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    plain = AutoModelForCausalLM.from_pretrained(exact_base)
    before = log_probs(plain, exact_base)
    expected = log_probs(PeftModel.from_pretrained(plain, unzipped), unzipped)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert (expected - before).abs().max() > 0.1, "the training changed nothing"
    torch.testing.assert_close(log_probs(merged, tmp_path / "merged"), expected, atol=1e-3, rtol=1e-3)


def test_the_merged_folder_is_a_whole_model_in_the_precision_of_its_base(unzipped: Path, tmp_path: Path) -> None:
    assert merge(BASE, unzipped, tmp_path / "merged") == 0
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert names >= {path.name for path in BASE.iterdir()}
    template = "chat_template.jinja"
    assert (tmp_path / "merged" / template).read_text() == (unzipped / template).read_text()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert merged.dtype == AutoModelForCausalLM.from_pretrained(BASE, dtype="auto").dtype


def test_what_cannot_be_merged_is_told_in_one_line(
    unzipped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (unzipped / "adapter_model.safetensors").rename(tmp_path / "weights")
    try:
        (unzipped / "adapter_model.safetensors").write_bytes(b"torn")
        assert merge(BASE, unzipped, tmp_path / "merged") == 1
    finally:
        (tmp_path / "weights").replace(unzipped / "adapter_model.safetensors")
    assert "could not be merged" in capsys.readouterr().err.splitlines()[-1]
