"""Liger's kernels, which CUDA GPUs train with where they are installed: the same numbers, in less memory and time."""

import torch
from transformers import PreTrainedModel
from transformers.integrations.liger import apply_liger_kernel
from transformers.utils import is_liger_kernel_available

from workers.head import Head


def has_liger(device: torch.device) -> bool:
    return device.type == "cuda" and bool(is_liger_kernel_available())


def begin_fusing(base: PreTrainedModel) -> None:
    """Norms, rotary positions and gated layers, in the families that Liger knows; the loss is called by ourselves."""
    apply_liger_kernel(base, {"cross_entropy": False, "fused_linear_cross_entropy": False})


def fused_loss(hidden: torch.Tensor, targets: torch.Tensor, head: Head) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed, and how many came first in the model's eyes; never all logits at once. Hidden: (K, D), targets: (K)."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy  # noqa: PLC0415 - not on CPUs

    told = liger_fused_linear_cross_entropy(
        hidden * head.scale,
        head.weight,
        targets,
        head.bias,
        softcap=head.cap,
        reduction="sum",
        accum_dtype=torch.float32,
        return_predicted_tokens=True,
    )
    return told.loss, (told.predicted_tokens == targets).sum()
