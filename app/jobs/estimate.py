"""What a fine-tune will take, before it is begun: arithmetic over the file's row lengths and the catalog."""

import math
from dataclasses import dataclass
from typing import Any

from app.billing.prices import training_micros
from app.catalog.spec import Catalog, GpuChoice, ModelSpec
from app.errors import BadRequest
from app.files.row_statistics import RowLengths

GIB = 1 << 30
# For each token and parameter, twice: forward, backward, for a gradient of its own, and forward again.
FLOPS_PER_PARAMETER = 4
FLOPS_OF_GRADIENT = 2
FLOPS_OF_CHECKPOINTING = 2
UTILISATION = 0.35
# The shape of a decoder: it has 12 · layers · hidden² parameters, and hidden is about 80 · layers.
HIDDEN_PER_LAYER = 80
ACTIVATION_BYTES = 34  # of each layer, for each token and hidden unit, in bf16
LOGITS_BYTES = (1 << 25) * 12  # of one chunk, with their gradient: the loss never holds more at once
RUNTIME_BYTES = 600 << 20  # Python, torch and what they have loaded
ADAPTER_SHARE_PER_RANK = 0.0005  # of the parameters, on all linear layers
TRAINED_BYTES = 16  # for each trained parameter: itself, its gradient, two moments
MESSAGE_BYTES = 4  # for each parameter of an adapter, its gradient on the way to the other GPUs
# A full fine-tune's weights are shared out among GPUs; for each of its parameters, what is whole on every GPU:
LOADED_BYTES = 4  # before that
GATHERED_BYTES = 1  # of the layer that is at work, and of the largest, which are the embeddings


class DoesNotFit(BadRequest):
    code = "does_not_fit"


@dataclass(frozen=True)
class GpuEstimate:
    gpu: GpuChoice
    memory_bytes: int  # of each GPU
    fits: bool
    seconds: float | None
    price_micros: int | None


def is_full(numbers: dict[str, Any]) -> bool:
    """Whether all weights are trained: there is no adapter then."""
    return "lora_r" not in numbers


def rows_a_step(numbers: dict[str, Any]) -> int:
    return int(numbers["batch_size"] * numbers["gradient_accumulation_steps"])


def rows_each(numbers: dict[str, Any], gpu: GpuChoice) -> int:
    """The largest share of a step's rows that one of several GPUs has."""
    return math.ceil(rows_a_step(numbers) / gpu.count)


def speedup(numbers: dict[str, Any], gpu: GpuChoice) -> float:
    """Of several GPUs over one, which wait for each other at the end of a step. Slots of the CPU share its cores."""
    return 1.0 if gpu.type == "CPU" else rows_a_step(numbers) / rows_each(numbers, gpu)


def n_steps(n_rows: int, numbers: dict[str, Any]) -> int:
    steps = math.ceil(n_rows / rows_a_step(numbers)) * numbers["n_epochs"]
    return int(min(steps, numbers["max_steps"] or steps))


def trained_tokens(lengths: RowLengths, n_rows: int, numbers: dict[str, Any]) -> int:
    """As many as pass through the model; fewer epochs do where max_steps ends the run before them."""
    an_epoch = lengths.n_tokens(numbers["max_seq_length"])
    epochs = n_steps(n_rows, numbers) / math.ceil(n_rows / rows_a_step(numbers))
    return round(an_epoch * epochs)


def memory_bytes(spec: ModelSpec, numbers: dict[str, Any], longest_row: int, gpu: GpuChoice) -> int:
    """Of each GPU: weights, what is trained with its optimizer, and the activations of one batch of the longest rows.

    CPUs train in fp32, and so do all where every weight is trained.
    """
    parameters = spec.parameters_billions * 1e9
    wide = 2 if gpu.type == "CPU" else 1
    weights = parameters * _bytes_a_parameter(numbers, gpu, wide)
    hidden = (HIDDEN_PER_LAYER * parameters / 12) ** (1 / 3)
    a_layer = ACTIVATION_BYTES * hidden
    layers = hidden / HIDDEN_PER_LAYER
    a_token = 2 * hidden * layers + a_layer if numbers["gradient_checkpointing"] else a_layer * layers
    rows = min(numbers["batch_size"], rows_each(numbers, gpu))
    tokens = rows * min(longest_row, numbers["max_seq_length"])
    return int(RUNTIME_BYTES + weights + tokens * a_token * wide + LOGITS_BYTES)


def _bytes_a_parameter(numbers: dict[str, Any], gpu: GpuChoice, wide: int) -> float:
    """With what is trained of it: its gradient and its moments."""
    if is_full(numbers):
        is_shared = gpu.count > 1
        return max(LOADED_BYTES, TRAINED_BYTES / gpu.count + GATHERED_BYTES) if is_shared else TRAINED_BYTES
    adapter: float = min(1.0, ADAPTER_SHARE_PER_RANK * numbers["lora_r"])
    frozen: float = (0.6 if numbers["use_qlora"] else 2) * wide
    return frozen + adapter * (TRAINED_BYTES + (MESSAGE_BYTES if gpu.count > 1 else 0))


def spare_memory(
    catalog: Catalog, spec: ModelSpec, gpu: GpuChoice, numbers: dict[str, Any], longest_row: int
) -> dict[str, Any]:
    """With gradient checkpointing only where it does not fit otherwise: it costs half as much time again."""
    needed = memory_bytes(spec, numbers, longest_row, gpu)
    return numbers if _fits(catalog, gpu, needed) else {**numbers, "gradient_checkpointing": True}


def training_seconds(
    catalog: Catalog, spec: ModelSpec, gpu: GpuChoice, numbers: dict[str, Any], n_tokens: int
) -> float | None:
    """None for a type without a speed."""
    teraflops = catalog.gpus[gpu.type].bf16_teraflops
    if teraflops is None:
        return None
    again = FLOPS_OF_CHECKPOINTING if numbers["gradient_checkpointing"] else 0
    a_token = FLOPS_PER_PARAMETER + again + (FLOPS_OF_GRADIENT if is_full(numbers) else 0)
    flops = n_tokens * a_token * spec.parameters_billions * 1e9
    return float(flops / (teraflops * 1e12 * UTILISATION * speedup(numbers, gpu)))


def on_gpu(
    catalog: Catalog, spec: ModelSpec, gpu: GpuChoice, numbers: dict[str, Any], *, n_tokens: int, longest_row: int
) -> GpuEstimate:
    type_ = catalog.gpus[gpu.type]
    needed = memory_bytes(spec, numbers, longest_row, gpu)
    fits = _fits(catalog, gpu, needed)
    seconds = training_seconds(catalog, spec, gpu, numbers, n_tokens)
    if seconds is None:
        return GpuEstimate(gpu, needed, fits, None, None)
    price = training_micros(n_tokens, seconds * gpu.count, spec.dollars_per_million_tokens, type_)
    return GpuEstimate(gpu, needed, fits, seconds, price)


def _fits(catalog: Catalog, gpu: GpuChoice, needed_bytes: int) -> bool:
    """Each of them. A type without a memory size, as the CPU, is taken to have enough."""
    has = catalog.gpus[gpu.type].memory_gib * GIB
    return has == 0 or needed_bytes <= has


def require_fit(catalog: Catalog, spec: ModelSpec, gpu: GpuChoice, numbers: dict[str, Any], lengths: RowLengths) -> int:
    """The least memory of each GPU: what it takes row by row with gradient checkpointing.

    Raises DoesNotFit, with the numbers.
    """
    sparing = {**numbers, "batch_size": 1, "gradient_checkpointing": True}
    needed = memory_bytes(spec, sparing, max(lengths.rows_of), gpu)
    if _fits(catalog, gpu, needed):
        return needed
    needs, has = round(needed / GIB, 1), catalog.gpus[gpu.type].memory_gib
    each = f"each of {gpu}" if gpu.count > 1 else str(gpu)
    raise DoesNotFit(
        f"Training {spec.id} on these rows needs about {needs} GiB, row by row; {each} has {has:g} GiB.",
        param="gpu_preference",
        troubleshooting={"gpu": str(gpu), "needed_gib": needs, "memory_gib": has},
    )
