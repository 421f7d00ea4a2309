"""What a fine-tune will take, before it is begun: arithmetic over the file's row lengths and the catalog."""

import math
from dataclasses import dataclass
from typing import Any

from app.billing.prices import training_micros
from app.catalog.spec import Catalog, GpuChoice, ModelSpec
from app.errors import BadRequest
from app.files.row_statistics import RowLengths

GIB = 1 << 30
FLOPS_PER_PARAMETER = 6  # forward and backward, for each token
UTILISATION = 0.35
# The shape of a decoder: it has 12 · layers · hidden² parameters, and hidden is about 80 · layers.
HIDDEN_PER_LAYER = 80
ACTIVATION_BYTES = 34  # of each layer, for each token and hidden unit
LOGITS_BYTES = 150_000 * 8  # for each token: a usual vocabulary, its logits and their gradient
ADAPTER_SHARE_PER_RANK = 0.0005  # of the parameters, on all linear layers
ADAPTER_BYTES = 16  # for each trained parameter: itself, its gradient, two moments


class DoesNotFit(BadRequest):
    code = "does_not_fit"


@dataclass(frozen=True)
class GpuEstimate:
    gpu: GpuChoice
    memory_bytes: int  # of each GPU
    fits: bool
    seconds: float | None
    price_micros: int | None


def n_steps(n_rows: int, numbers: dict[str, Any]) -> int:
    rows_a_step: int = numbers["batch_size"] * numbers["gradient_accumulation_steps"]
    steps = math.ceil(n_rows / rows_a_step) * numbers["n_epochs"]
    return int(min(steps, numbers["max_steps"] or steps))


def trained_tokens(lengths: RowLengths, n_rows: int, numbers: dict[str, Any]) -> int:
    """As many as pass through the model; fewer epochs do where max_steps ends the run before them."""
    an_epoch = lengths.n_tokens(numbers["max_seq_length"])
    rows_a_step: int = numbers["batch_size"] * numbers["gradient_accumulation_steps"]
    epochs = n_steps(n_rows, numbers) / math.ceil(n_rows / rows_a_step)
    return round(an_epoch * epochs)


def memory_bytes(spec: ModelSpec, numbers: dict[str, Any], longest_row: int) -> int:
    """Weights, adapter and optimizer, and the activations of one batch of the longest rows."""
    parameters = spec.parameters_billions * 1e9
    weights = parameters * (0.6 if numbers["use_qlora"] else 2)
    adapter = parameters * min(1.0, ADAPTER_SHARE_PER_RANK * numbers["lora_r"]) * ADAPTER_BYTES
    hidden = (HIDDEN_PER_LAYER * parameters / 12) ** (1 / 3)
    a_layer = ACTIVATION_BYTES * hidden
    layers = hidden / HIDDEN_PER_LAYER
    a_token = 2 * hidden * layers + a_layer if numbers["gradient_checkpointing"] else a_layer * layers
    tokens = numbers["batch_size"] * min(longest_row, numbers["max_seq_length"])
    return int(weights + adapter + tokens * (a_token + LOGITS_BYTES))


def on_gpu(catalog: Catalog, spec: ModelSpec, gpu: GpuChoice, n_tokens: int, needed_bytes: int) -> GpuEstimate:
    """A type without a memory size, as the CPU, is taken to have enough; one without a speed has no time."""
    type_ = catalog.gpus[gpu.type]
    fits = type_.memory_gib == 0 or needed_bytes <= type_.memory_gib * gpu.count * GIB
    if type_.bf16_teraflops is None:
        return GpuEstimate(gpu, needed_bytes // gpu.count, fits, None, None)
    flops = n_tokens * FLOPS_PER_PARAMETER * spec.parameters_billions * 1e9
    seconds = flops / (type_.bf16_teraflops * 1e12 * UTILISATION * gpu.count)
    price = training_micros(n_tokens, seconds * gpu.count, spec.dollars_per_million_tokens, type_)
    return GpuEstimate(gpu, needed_bytes // gpu.count, fits, seconds, price)


def require_fit(catalog: Catalog, spec: ModelSpec, gpu: GpuChoice, numbers: dict[str, Any], lengths: RowLengths) -> int:
    """The least memory of each GPU: what it takes row by row with gradient checkpointing.

    Raises DoesNotFit, with the numbers.
    """
    sparing = {**numbers, "batch_size": 1, "gradient_checkpointing": True}
    needed = memory_bytes(spec, sparing, max(lengths.rows_of))
    if on_gpu(catalog, spec, gpu, 0, needed).fits:
        return needed // gpu.count
    needs, has = round(needed / GIB, 1), catalog.gpus[gpu.type].memory_gib * gpu.count
    raise DoesNotFit(
        f"Training {spec.id} on these rows needs about {needs} GiB, row by row; {gpu} has {has:g} GiB.",
        param="gpu_preference",
        troubleshooting={"gpu": str(gpu), "needed_gib": needs, "memory_gib": has},
    )
