"""Attention over rows that lie end to end: each row sees itself alone, and none pays for the length of all."""

from itertools import accumulate
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from workers.precision import precision_of

ROW_BY_ROW = "row_by_row"
VIEWS = {"full_attention", "sliding_attention"}


def begin_packing(model: PreTrainedModel) -> None:
    """From now on rows may lie end to end, if all that mixes tokens in the model is plain attention."""
    if _is_plain(model):
        model.set_attn_implementation(ROW_BY_ROW)


def is_packing(model: PreTrainedModel) -> bool:
    return bool(model.config._attn_implementation == ROW_BY_ROW)  # noqa: SLF001


def _is_plain(model: PreTrainedModel) -> bool:
    """A recurrence would leak from row to row, a sink or a cap would be left out."""
    config = model.config.get_text_config()
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    is_plain = getattr(config, "attn_logit_softcapping", None) is None
    return bool(model._supports_attention_backend and model._supports_sdpa and is_plain and layers <= VIEWS)  # noqa: SLF001


def attend_row_by_row(  # noqa: PLR0913, PLR0917
    module: torch.nn.Module,
    query: torch.Tensor,  # (1, H, T, D)
    key: torch.Tensor,  # (1, H of keys, T, D)
    value: torch.Tensor,
    attention_mask: None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    *,
    row_lengths: list[int],
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls for each layer: (1, T, H, D) and no weights. `row_lengths` came with the batch."""
    if precision_of(query.device.type) is torch.bfloat16 and not dropout:
        return _by_flash_attention(query, key, value, row_lengths, scaling, sliding_window), None
    rows = zip(*(tensor.split(row_lengths, dim=2) for tensor in (query, key, value)), strict=True)
    attended = [
        scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=(window := _window(q, sliding_window)),
            is_causal=window is None,
            dropout_p=dropout,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        for q, k, v in rows
    ]
    return torch.cat(attended, dim=2).transpose(1, 2), None


def _window(query: torch.Tensor, sliding_window: int | None) -> torch.Tensor | None:
    """Which keys each token sees; None where it is all before it."""
    length = query.shape[2]
    if sliding_window is None or length <= sliding_window:
        return None
    return torch.ones(length, length, dtype=torch.bool, device=query.device).tril().triu(1 - sliding_window)


def _by_flash_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    row_lengths: list[int],
    scaling: float | None,
    sliding_window: int | None,
) -> torch.Tensor:
    """One kernel for all rows. It knows half precision alone."""
    starts = torch.tensor([0, *accumulate(row_lengths)], dtype=torch.int32, device=query.device)
    longest = max(row_lengths)
    q, k, v = (tensor[0].transpose(0, 1).to(torch.bfloat16).contiguous() for tensor in (query, key, value))  # (T, H, D)
    attended: torch.Tensor = varlen_attn(
        *(q, k, v, starts, starts, longest, longest),
        scale=scaling,
        window_size=(sliding_window - 1 if sliding_window else -1, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return attended.unsqueeze(0).to(query.dtype)


AttentionInterface.register(ROW_BY_ROW, attend_row_by_row)
