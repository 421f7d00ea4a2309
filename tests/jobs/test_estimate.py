"""What a job will take is told before it is begun, for nothing."""

from decimal import Decimal
from typing import Any

import pytest
from httpx import AsyncClient

from app.billing.ledger import Entry, append
from app.billing.prices import training_micros
from app.catalog.spec import GpuChoice, GpuType
from app.files.row_statistics import RowLengths
from app.jobs import estimate
from app.jobs.estimate import DoesNotFit
from app.jobs.hyperparameters import OF_ADAPTERS
from app.jobs.schemas import JobCreate
from app.jobs.service import create_job
from app.store.session import Store
from tests.asking import JOBS, MODEL, TEN_STEPS, jsonl, ok, refused, upload
from tests.asking import create_job as make_job
from tests.rows import CATALOG, chat_rows, key_of, make_file, make_org

ESTIMATE = "/v1/fine_tuning/estimate"
SPEC, A100 = CATALOG.models[0], GpuChoice.parse("A100")
NUMBERS: dict[str, Any] = {
    "n_epochs": 2,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "max_steps": None,
    "max_seq_length": 100,
    "use_qlora": False,
    "lora_r": 16,
    "gradient_checkpointing": False,
}

FAST = CATALOG.model_copy(
    update={
        "gpus": {
            name: GpuType(memory_gib=80, dollars_per_hour=Decimal(1), bf16_teraflops=300) for name in ("A100", "CPU")
        }
    }
)


def test_steps_and_tokens_are_those_of_the_rows_and_epochs() -> None:
    lengths = RowLengths.of({"40": 8, "1024": 2})
    assert estimate.n_steps(10, NUMBERS) == 6
    assert estimate.trained_tokens(lengths, 10, NUMBERS) == 2 * (8 * 40 + 2 * 100)
    assert estimate.n_steps(10, {**NUMBERS, "max_steps": 3}) == 3
    assert estimate.trained_tokens(lengths, 10, {**NUMBERS, "max_steps": 3}) == 8 * 40 + 2 * 100


@pytest.mark.parametrize("saving", [{"use_qlora": True}, {"gradient_checkpointing": True}, {"batch_size": 1}])
def test_what_saves_memory_is_seen_to(saving: dict[str, Any]) -> None:
    saved, without = (estimate.memory_bytes(SPEC, n, 100, A100) for n in ({**NUMBERS, **saving}, NUMBERS))
    assert saved < without


def test_a_cpu_takes_twice_the_memory_and_checkpointing_half_as_much_time_again() -> None:
    on_cpu, on_gpu = (estimate.memory_bytes(SPEC, NUMBERS, 100, gpu) for gpu in (GpuChoice.parse("CPU"), A100))
    assert on_cpu > on_gpu + SPEC.parameters_billions * 1e9
    plain, sparing = (
        estimate.training_seconds(FAST, SPEC, A100, {**NUMBERS, "gradient_checkpointing": sparing}, 1000)
        for sparing in (False, True)
    )
    assert plain
    assert sparing == pytest.approx(1.5 * plain)


@pytest.mark.parametrize(
    ("gpu", "speedup"),
    # A step has four rows: three GPUs are no faster than two, and more than four no faster than four.
    [("A100:2", 2.0), ("A100:3", 2.0), ("A100:4", 4.0), ("A100:8", 4.0), ("CPU:2", 1.0)],
)
def test_several_gpus_are_as_much_faster_as_they_share_a_step_and_all_are_paid(gpu: str, speedup: float) -> None:
    several = GpuChoice.parse(gpu)
    one = GpuChoice(several.type, 1)
    told, alone = (
        estimate.on_gpu(FAST, SPEC, choice, NUMBERS, n_tokens=10**9, longest_row=100) for choice in (several, one)
    )
    assert told.seconds
    assert alone.seconds == pytest.approx(told.seconds * speedup)
    tokens = training_micros(10**9, 0.0, SPEC.dollars_per_million_tokens, FAST.gpus[one.type])
    assert (told.price_micros or 0) - tokens == pytest.approx(
        ((alone.price_micros or 0) - tokens) * several.count / speedup, rel=1e-3
    )


def test_each_of_several_gpus_holds_the_whole_model_and_its_share_of_the_rows() -> None:
    large = SPEC.model_copy(update={"parameters_billions": 60})
    for gpu in ("A100", "A100:2", "A100:8"):
        told = estimate.on_gpu(CATALOG, large, GpuChoice.parse(gpu), NUMBERS, n_tokens=1000, longest_row=100)
        assert not told.fits
        assert told.memory_bytes > 120e9
    one, two, four = (estimate.memory_bytes(SPEC, NUMBERS, 100, GpuChoice("A100", n)) for n in (1, 2, 4))
    assert one == pytest.approx(two, rel=1e-2)
    assert two > four  # two rows at once, of four in a step


def test_several_gpus_share_out_a_full_fine_tune_but_for_what_is_loaded_first() -> None:
    full = {name: number for name, number in NUMBERS.items() if name not in OF_ADAPTERS}
    one, two, eight = (estimate.memory_bytes(SPEC, full, 100, GpuChoice("A100", n)) for n in (1, 2, 8))
    assert one - two == pytest.approx(7e9, rel=0.05)  # of a billion parameters
    assert eight > 4e9
    assert estimate.training_seconds(FAST, SPEC, A100, full, 1000) == pytest.approx(
        1.5 * (estimate.training_seconds(FAST, SPEC, A100, NUMBERS, 1000) or 0)
    )


@pytest.mark.parametrize(("parameters_billions", "fits"), [(1, True), (100, False)])
def test_what_is_larger_than_a_gpu_does_not_fit(parameters_billions: float, fits: bool) -> None:
    spec = SPEC.model_copy(update={"parameters_billions": parameters_billions})
    assert estimate.on_gpu(CATALOG, spec, A100, NUMBERS, n_tokens=1000, longest_row=100).fits is fits


SMALL = CATALOG.model_copy(update={"gpus": {"A100": GpuType(memory_gib=2, dollars_per_hour=Decimal(1))}})


@pytest.mark.anyio
async def test_a_job_that_no_gpu_here_can_hold_is_refused_with_the_numbers(store: Store) -> None:
    async with store.begin() as session:
        org = await make_org(session)
        await append(session, Entry(org_id=org.id, source="test", kind="credit", amount_micros=10**6))
        file = await make_file(session, org, row_lengths={"1024": 10})
        asked = JobCreate(model=SPEC.id, training_file=file.id)
        with pytest.raises(DoesNotFit) as refusal:
            await create_job(session, SMALL, key_of(org), asked, gpu=A100)
        assert (refusal.value.troubleshooting or {})["memory_gib"] == 2
        enough = await create_job(session, CATALOG, key_of(org), asked, gpu=A100)
        assert enough.status == "queued"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("memory_gib", "asked", "resolved"), [(80, "auto", False), (4, "auto", True), (4, False, False), (80, True, True)]
)
async def test_gradients_are_checkpointed_where_memory_asks_for_it_and_the_job_says_so(
    store: Store, memory_gib: int, asked: bool | str, resolved: bool
) -> None:
    gpus = {"A100": GpuType(memory_gib=memory_gib, dollars_per_hour=Decimal(1))}
    async with store.begin() as session:
        org = await make_org(session)
        await append(session, Entry(org_id=org.id, source="test", kind="credit", amount_micros=10**6))
        file = await make_file(session, org, row_lengths={"1024": 10})
        body = JobCreate.model_validate(
            {"model": SPEC.id, "training_file": file.id, "hyperparameters": {"gradient_checkpointing": asked}}
        )
        job = await create_job(session, CATALOG.model_copy(update={"gpus": gpus}), key_of(org), body, gpu=A100)
        assert job.hyperparameters["gradient_checkpointing"] is resolved


@pytest.mark.anyio
async def test_an_estimate_tells_tokens_steps_memory_and_price_and_charges_nothing(client: AsyncClient) -> None:
    body = {"model": MODEL, "training_file": (await upload(client))["id"], "hyperparameters": TEN_STEPS}
    before = ok(await client.get("/v1/balance/current"))["balance_cents"]
    told = ok(await client.post(ESTIMATE, json=body))
    assert (told["n_rows"], told["rows_cut"], told["steps"], told["balance_cents"]) == (10, 0, 10, before)
    assert told["trained_tokens"] > 0
    for gpu in told["gpus"]:
        assert gpu["fits"]
        assert gpu["memory_gib"] > 0
        assert gpu["estimated_seconds"] >= 0
        assert gpu["is_covered_by_balance"]
    asked = ok(await client.post(ESTIMATE, json={**body, "gpu_preference": "a100:2"}))
    assert [gpu["gpu"] for gpu in asked["gpus"]] == [*(gpu["gpu"] for gpu in told["gpus"]), "A100:2"]
    refused(
        await client.post(ESTIMATE, json={**body, "gpu_preference": "tpu"}),
        400,
        param="gpu_preference",
        code="gpu_not_supported",
    )
    assert ok(await client.get("/v1/balance/current"))["balance_cents"] == before
    assert ok(await client.get(JOBS))["data"] == []


@pytest.mark.anyio
async def test_an_estimate_refuses_what_a_job_would(client: AsyncClient) -> None:
    bad = (await upload(client, b"{}\n"))["id"]
    response = await client.post(ESTIMATE, json={"model": MODEL, "training_file": bad})
    refused(response, 400, param="training_file", code="invalid_training_file")
    response = await client.post(ESTIMATE, json={"model": "no/such", "training_file": bad})
    refused(response, 404, param="model", code="model_not_found")


@pytest.mark.anyio
async def test_early_stopping_without_rows_to_validate_with_is_refused_at_once(client: AsyncClient) -> None:
    one, ten = (await upload(client, jsonl(chat_rows(1))))["id"], (await upload(client))["id"]
    patient = {"early_stopping_patience": 2}
    param = "hyperparameters.early_stopping_patience"
    for training_file, numbers in ((ten, patient), (one, {**patient, "validation_split": 0.5})):
        body = {"model": MODEL, "training_file": training_file, "hyperparameters": numbers}
        for path in (JOBS, ESTIMATE):
            refused(await client.post(path, json=body), 400, param=param)
    for enough in (
        {"hyperparameters": {**patient, "validation_split": 0.5}},
        {"hyperparameters": patient, "validation_file": ten},
    ):
        ok(await client.post(ESTIMATE, json={"model": MODEL, "training_file": ten, **enough}))


@pytest.mark.anyio
async def test_a_job_and_an_estimate_tell_the_warnings_of_the_file(client: AsyncClient) -> None:
    row = chat_rows(1)[0]
    file_id = (await upload(client, jsonl([row, row])))["id"]
    warning = "Line 2: the same row as line 1"
    assert ok(await client.post(ESTIMATE, json={"model": MODEL, "training_file": file_id}))["warnings"] == [warning]
    job = await make_job(client, training_file=file_id)
    events = ok(await client.get(f"{JOBS}/{job['id']}/events"))["data"]
    assert [event["message"] for event in events if event["level"] == "warn"] == [warning]
