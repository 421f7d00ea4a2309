"""Packed, padded and alone, a row gives the loss and the gradients that the model's own forward pass gives."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from workers.attention import begin_packing, is_packing
from workers.chat_data import IGNORED, Example
from workers.head import Head
from workers.loss import ChunkedLoss, summed_loss

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys")]

TINY: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SLIDING = {"sliding_window": 4}
MIXTURE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "qwen3": {},
    "qwen3_moe": MIXTURE,
    "llama": {},
    "mistral": SLIDING,
    "phi3": SLIDING,
    "gemma3_text": {**SLIDING, "layer_types": ["sliding_attention", "full_attention"], "final_logit_softcapping": 2.0},
    "smollm3": {},
    "granite": {"logits_scaling": 3.0},
    "cohere": {"logit_scale": 0.25},
}
PLAIN_ONLY: dict[str, dict[str, Any]] = {
    "gpt_oss": {**SLIDING, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gemma2": {**SLIDING, "layer_types": ["sliding_attention", "full_attention"]},
    "qwen3_next": {**MIXTURE, "layer_types": ["linear_attention", "full_attention"]},
}


def tiny(family: str, changes: dict[str, Any]) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**TINY, **changes}), dtype=torch.float32)
    return model.eval()


def with_lora(base: PreTrainedModel) -> Any:
    return get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)).eval()


def examples() -> list[Example]:
    rows = torch.Generator().manual_seed(1)
    ids = [torch.randint(3, 50, (length,), generator=rows).tolist() for length in (5, 17, 9)]
    return [Example(n, row, [IGNORED] * 2 + row[2:]) for n, row in enumerate(ids)]


def gradients(model: Any, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def by_its_own_forward(model: Any) -> torch.Tensor:
    total = torch.zeros(())
    for row in examples():
        n_learned = sum(label != IGNORED for label in row.labels[1:])
        told = model(input_ids=torch.tensor([row.input_ids]), labels=torch.tensor([row.labels]), use_cache=False)
        total = total + told.loss * n_learned
    return total


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize(("family", "changes"), FAMILIES.items(), ids=FAMILIES)
def test_a_batch_teaches_what_its_rows_would_teach_alone(family: str, changes: dict[str, Any], packing: bool) -> None:
    model = with_lora(tiny(family, changes))
    expected = by_its_own_forward(model)
    wanted = gradients(model, expected)
    if packing:
        begin_packing(model.get_base_model())
        assert is_packing(model.get_base_model())
    total, _ = summed_loss(model, examples())
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(gradients(model, total), wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("family", "changes"), PLAIN_ONLY.items(), ids=PLAIN_ONLY)
def test_a_model_in_which_rows_would_not_stay_apart_is_padded(family: str, changes: dict[str, Any]) -> None:
    base = tiny(family, changes)
    begin_packing(base)
    assert not is_packing(base)


@pytest.mark.parametrize("head_learns", [False, True])
def test_chunks_of_logits_add_up(head_learns: bool) -> None:
    base = tiny("qwen3", {})
    head = Head.of(base)
    head.weight.requires_grad_(head_learns)
    targets = torch.arange(3, 20)
    told = []
    for at_once in (17, 5, 1):
        base.zero_grad()
        hidden = torch.randn(17, TINY["hidden_size"], generator=torch.Generator().manual_seed(3)).requires_grad_()
        loss, n_correct = ChunkedLoss.apply(hidden, head.weight, targets, head, at_once)
        loss.backward()
        told.append((loss, n_correct, hidden.grad, head.weight.grad))
    assert (told[0][3] is not None) is head_learns
    for some in told[1:]:
        torch.testing.assert_close(some, told[0])


LIGER_FAMILIES = ("qwen3", "granite", "cohere")  # the interpreter does not know how to cap


def test_ligers_fused_loss_teaches_what_ours_does() -> None:
    """In Triton's interpreter, which has to be asked for before anything is imported."""
    pytest.importorskip("liger_kernel")
    argv = [sys.executable, "-m", "tests.workers.liger_interpreted", *LIGER_FAMILIES]
    done = subprocess.run(
        argv, env={**os.environ, "TRITON_INTERPRET": "1"}, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == list(LIGER_FAMILIES)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("family", ["qwen3", "mistral"])
def test_one_kernel_for_all_rows_teaches_what_padding_does(family: str) -> None:
    model = with_lora(tiny(family, {**FAMILIES[family], "hidden_size": 128, "head_dim": 32}).to("cuda", torch.bfloat16))
    expected, _ = summed_loss(model, examples())
    wanted = gradients(model, expected)
    begin_packing(model.get_base_model())
    total, _ = summed_loss(model, examples())
    torch.testing.assert_close(total, expected, rtol=2e-2, atol=1e-2)
    torch.testing.assert_close(gradients(model, total), wanted, rtol=1e-1, atol=1e-1)
