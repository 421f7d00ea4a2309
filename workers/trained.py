"""What a run trains: an adapter on a frozen base or, in a full fine-tune, the base itself."""

import json
from pathlib import Path
from typing import TypeAlias

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from workers.base_model import load_base
from workers.sft_config import Config, Hyperparameters

Trained: TypeAlias = PeftModel | PreTrainedModel
Weights = dict[str, torch.Tensor]


def base_of(model: Trained) -> PreTrainedModel:
    return model.get_base_model() if isinstance(model, PeftModel) else model


def begin_with(base: PreTrainedModel, folder: Path, config: Config) -> Trained:
    """As it was saved in a folder. `base` is changed and must not be used any more."""
    if not config.is_full:
        return PeftModel.from_pretrained(base, folder, is_trainable=True)
    saved = load_base(str(folder), torch.device("cpu"), config)
    base.load_state_dict(saved.state_dict())
    return base


def begin_anew(base: PreTrainedModel, config: Config) -> Trained:
    return base if config.is_full else get_peft_model(base, new_lora(config.hyperparameters))


def new_lora(asked: Hyperparameters) -> LoraConfig:
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=asked.lora_r,
        lora_alpha=asked.lora_alpha,
        lora_dropout=asked.lora_dropout,
        use_rslora=asked.use_rslora,
        target_modules=asked.lora_target_modules,
        bias="none",
    )


def save(model: Trained, folder: Path, config: Config, whole: Weights | None, *, is_final: bool = False) -> None:
    """For PEFT and vLLM an adapter; for transformers and vLLM a model of its own, with its tokenizer.

    `whole`: the weights of a model that has only a part of them. A model that is final is as narrow as its base.
    """
    if isinstance(model, PeftModel):
        model.peft_config["default"].base_model_name_or_path = config.served_model
        model.save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
        return
    dtype = served_dtype(config)
    tied = model.all_tied_weights_keys
    weights = {name: weight for name, weight in (whole or model.state_dict()).items() if name not in tied}
    if is_final:
        weights = {name: weight.to("cpu", dtype) for name, weight in weights.items()}
    model.save_pretrained(folder, state_dict=weights)
    AutoTokenizer.from_pretrained(config.model_path).save_pretrained(folder)
    _declare_dtype(folder / "config.json", dtype)


def weights_in(folder: Path, config: Config) -> Weights:
    """What was saved there, as narrow as an engine holds it."""
    dtype = served_dtype(config)
    if config.is_full:
        return dict(AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True).state_dict())
    saved = load_file(folder / "adapter_model.safetensors")
    return {name: weight.to(dtype) for name, weight in saved.items()}


def served_dtype(config: Config) -> torch.dtype:
    dtype: torch.dtype | None = AutoConfig.from_pretrained(config.model_path).get_text_config().dtype
    return dtype or torch.float32


def _declare_dtype(path: Path, dtype: torch.dtype) -> None:
    """So that an engine loads a checkpoint as narrow as the model will be."""
    told = json.loads(path.read_bytes())
    path.write_text(json.dumps({**told, "dtype": str(dtype).removeprefix("torch.")}, indent=2), "utf-8")
