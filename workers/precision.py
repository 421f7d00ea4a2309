"""In what precision the hardware trains: bfloat16 where a GPU has it, else float32. In float16 gradients vanish."""

from functools import cache

import torch


@cache
def precision_of(device: str) -> torch.dtype:
    """What a GPU only imitates is slower than float32."""
    has_bf16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bf16 else torch.float32
