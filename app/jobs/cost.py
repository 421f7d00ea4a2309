"""What a job costs: so far, after a while, and in all."""

from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.prices import training_micros
from app.catalog.spec import Catalog, GpuChoice
from app.files.row_statistics import RowLengths
from app.jobs import estimate
from app.store.tables import File, Job


def cost_micros(catalog: Catalog, job: Job, *, more_seconds: float = 0.0) -> int:
    """As far as it has come, and as it would be after `more_seconds` at the same pace; 0 for a model that is gone."""
    spec, gpu = catalog.find(job.base_model), GpuChoice.parse(job.gpu)
    if spec is None:
        return 0
    gpu_seconds = job.gpu_seconds + more_seconds * gpu.count
    tokens = round(job.trained_tokens * gpu_seconds / job.gpu_seconds) if job.gpu_seconds else 0
    return training_micros(tokens, gpu_seconds, spec.dollars_per_million_tokens, catalog.gpus[gpu.type])


async def estimate_micros(session: AsyncSession, catalog: Catalog, job: Job) -> int:
    """What it is expected to cost in all: its tokens alone on a GPU of unknown speed; 0 where nothing is known."""
    spec, file = catalog.find(job.base_model), await session.get(File, job.training_file)
    if spec is None or file is None or not file.row_lengths:
        return 0
    lengths = RowLengths.of(file.row_lengths)
    n_tokens = estimate.trained_tokens(lengths, file.n_rows or 1, job.hyperparameters)
    gpu = GpuChoice.parse(job.gpu)
    seconds = estimate.training_seconds(catalog, spec, gpu, job.hyperparameters, n_tokens) or 0.0
    return training_micros(n_tokens, seconds * gpu.count, spec.dollars_per_million_tokens, catalog.gpus[gpu.type])
