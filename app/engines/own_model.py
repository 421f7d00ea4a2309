"""A full fine-tune is served as a model of its own: an engine is started on its folder, as on a base model's."""

from app.catalog.resolve import AdapterRef, Target
from app.catalog.spec import GpuChoice, ModelSpec
from app.files.storage import Storage


def model_of(storage: Storage, base: ModelSpec, tuned: AdapterRef | None) -> ModelSpec:
    """What an engine is started on for a fine-tune: the base itself, except for a full one."""
    if tuned is None or tuned.own_name is None:
        return base
    weights = str(storage.adapter(tuned.job_id, tuned.folder))
    changes = {"id": tuned.own_name, "weights": weights, "trainable": False, "pinned": False}
    return base.model_copy(update=changes)


def target_of(storage: Storage, base: ModelSpec, tuned: AdapterRef | None, gpu: GpuChoice) -> Target:
    is_own = tuned is not None and tuned.own_name is not None
    return Target(model_of(storage, base, tuned), None if is_own else tuned, gpu)
