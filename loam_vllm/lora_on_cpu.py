"""A vLLM plugin: on a CPU, a request without an adapter is answered without one.

There, vLLM 0.32 picks each token's adapter by its slot in a tensor, and says -1 where there is none: which is PyTorch's
word for the last slot. Once that is in use, requests to a base that share a batch with its fine-tunes get its weights.
vLLM finds this by its entry point, in each of its processes.
"""

from typing import Any


def register() -> None:
    """Harmless when called again, and on other platforms."""
    from vllm.platforms import current_platform  # noqa: PLC0415 - asked for by vLLM, whose import is under way

    if current_platform.is_cpu():
        _mask_tokens_without_adapter()


def _mask_tokens_without_adapter() -> None:
    from vllm.lora.ops.torch_ops import lora_ops  # noqa: PLC0415
    from vllm.lora.punica_wrapper import punica_cpu  # noqa: PLC0415

    shrink = lora_ops.bgmv_shrink
    if getattr(shrink, "masks_tokens_without_adapter", False):
        return

    def masked(inputs: Any, weights: Any, output: Any, slots: Any, scaling: float = 1.0) -> None:
        """`inputs` (T, H) -> `output` (T, R), both of T tokens: what is zero here adds nothing to an answer."""
        shrink(inputs, weights, output, slots, scaling)
        output[slots < 0] = 0

    masked.masks_tokens_without_adapter = True  # type: ignore[attr-defined]
    lora_ops.bgmv_shrink = punica_cpu.bgmv_shrink = masked
