"""Engines and jobs share devices: on one device, a model that is never idle and a job both get their turn."""

import threading
from pathlib import Path

import httpx
import pytest

from tests.asking import CHAT, chat_body
from tests.eventually import until
from tests.servers import Server, running_server

ONE_DEVICE = {
    "LOAM_DEVICES": '["CPU:1"]',
    "LOAM_DRAIN_AFTER_SECONDS": "1",
    "LOAM_SETTLE_SECONDS": "0",
    "LOAM_POLL_SECONDS": "0.1",
    "LOAM_SIMULATE_TRAINING_SECONDS": "1",
}


@pytest.mark.timeout(120)
def test_a_job_is_trained_though_a_model_is_asked_without_a_pause_and_nobody_is_turned_away(
    tmp_path: Path, training_file: Path
) -> None:
    with running_server(tmp_path, "--simulate", **ONE_DEVICE) as server:
        headers = server.new_org().headers
        stop, statuses = threading.Event(), list[int]()
        asking = [threading.Thread(target=ask_until, args=(stop, server, headers, statuses)) for _ in range(3)]
        for thread in asking:
            thread.start()
        with httpx.Client(base_url=server.url, headers=headers, timeout=30) as client:
            until(lambda: len(statuses) > 5)
            with training_file.open("rb") as file:
                uploaded = client.post("/v1/files", files={"file": file}, data={"purpose": "fine-tune"}).json()
            body = {"model": "loam/demo", "training_file": uploaded["id"]}
            job = client.post("/v1/fine_tuning/jobs", json=body).json()
            path = f"/v1/fine_tuning/jobs/{job['id']}"
            until(lambda: client.get(path).json()["status"] == "succeeded", within_seconds=60)
            n_before = len(statuses)
            until(lambda: len(statuses) > n_before + 5)
        stop.set()
        for thread in asking:
            thread.join()
        assert set(statuses) == {200}


def ask_until(stop: threading.Event, server: Server, headers: dict[str, str], statuses: list[int]) -> None:
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        while not stop.is_set():
            body = chat_body(model="loam/demo", messages=[{"role": "user", "content": "[simulate: tokens=40]"}])
            statuses.append(client.post(CHAT, json=body).status_code)
