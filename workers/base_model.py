"""The base as it is trained on: in the hardware's precision, quantised, packing and checkpointing as asked."""

from typing import Any

import torch
from peft import prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from workers.attention import begin_packing
from workers.liger import begin_fusing, has_liger
from workers.precision import precision_of
from workers.sft_config import Config


def load_base(model_path: str, device: torch.device, config: Config) -> PreTrainedModel:
    """Frozen weights are as narrow as the hardware has them; those that learn are wide, else small steps are lost."""
    asked = config.hyperparameters
    options: dict[str, Any] = {"dtype": torch.float32 if config.is_full else precision_of(device.type)}
    if asked.use_qlora:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=precision_of(device.type),
        )
    base = AutoModelForCausalLM.from_pretrained(model_path, device_map={"": device}, use_safetensors=True, **options)
    base.config.use_cache = False
    if asked.packing:
        begin_packing(base)
    if has_liger(device):
        begin_fusing(base)
    if asked.use_qlora:
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    if asked.gradient_checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
        base.enable_input_require_grads()
    return base
