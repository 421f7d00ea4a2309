"""All that is swept: by a gateway now and then, and by `loam gc`."""

from functools import partial

from app.files.storage import Storage
from app.inference.responses_upkeep import sweep_responses
from app.settings import Settings
from app.store.session import Store
from app.upkeep.sweeping import (
    Sweep,
    sweep_deleted_orgs,
    sweep_disk,
    sweep_holds,
    sweep_idempotency_keys,
    sweep_job_events,
    sweep_rate_levels,
    sweep_under_way,
)


def all_sweeps(settings: Settings, store: Store, storage: Storage) -> list[Sweep]:
    return [
        partial(sweep_responses, store, settings.response_retention_days),
        partial(sweep_job_events, store, settings.job_event_retention_days),
        partial(sweep_idempotency_keys, store),
        partial(sweep_rate_levels, store),
        partial(sweep_under_way, store),
        partial(sweep_holds, store),
        partial(sweep_deleted_orgs, store),
        partial(sweep_disk, store, storage),
    ]
