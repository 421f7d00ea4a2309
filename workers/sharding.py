"""A full fine-tune on several GPUs: each holds a part of every weight, of its gradient and of its moments (FSDP)."""

from types import MethodType
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from workers.loss import SUM_LOSS, sum_loss
from workers.precision import precision_of
from workers.trained import Trained

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)  # the first rank gets it


def shard(base: PreTrainedModel, device: torch.device) -> None:
    """Layer by layer, so that no more than a few are whole at once; in half precision half as much is sent around."""
    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    policy = half if precision_of(device.type) is torch.bfloat16 else MixedPrecisionPolicy()
    for layer in getattr(base.get_decoder(), "layers", ()):
        fully_shard(layer, mp_policy=policy)
    fully_shard(base, mp_policy=policy)
    setattr(base, SUM_LOSS, MethodType(sum_loss, base))
    register_fsdp_forward_method(base, SUM_LOSS)


def is_sharded(model: Trained) -> bool:
    return isinstance(model, FSDPModule)


def whole_weights(model: Trained) -> dict[str, torch.Tensor] | None:
    """All ranks ask, and the first one gets them; None where nothing is shared out."""
    return get_model_state_dict(model, options=WHOLE) if is_sharded(model) else None


def optimizer_state(model: Trained, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """By the parameters' names, so that any number of ranks can go on from it."""
    return dict(get_optimizer_state_dict(model, optimizer, options=WHOLE))


def load_optimizer_state(model: Trained, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    set_optimizer_state_dict(model, optimizer, state, options=StateDictOptions(full_state_dict=True))


def number_of(norm: torch.Tensor) -> float:
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
