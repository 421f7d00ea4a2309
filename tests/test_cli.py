"""The command `loam`, and what it leaves behind: nothing."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from app.ids import new_id
from tests.asking import CHAT, chat_body
from tests.command import loam
from tests.eventually import until
from tests.servers import Server, running_server, start_server


def run(data_dir: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return loam({**env, "LOAM_DATA_DIR": str(data_dir)}, *arguments)


def asked(server: Server, key: str, **headers: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}", **headers}
    return httpx.post(server.url + CHAT, headers=headers, json=chat_body(), timeout=30)


def leftovers(server: Server) -> list[psutil.Process]:
    """Processes that know the server's folder, the server itself excepted."""

    def is_one(process: psutil.Process) -> bool:
        try:
            told = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            return False
        return process.pid != server.process.pid and any(str(server.data_dir) in text for text in told)

    return [process for process in psutil.process_iter() if is_one(process)]


def sockets(server: Server) -> list[Path]:
    return list((server.data_dir / "engines").glob("*.sock"))


def test_orgs_and_keys_are_made_and_a_revoked_key_is_refused_within_seconds(tmp_path: Path) -> None:
    with running_server(tmp_path, "--simulate", command="serve", LOAM_KEY_CACHE_SECONDS="0.2") as server:
        assert "acme" in server.loam("orgs", "create", "acme")
        key = server.loam("keys", "create", "--org", "acme")
        assert re.fullmatch(r"sk-loam-[A-Za-z0-9_-]{43}\n", key)
        key = key.strip()
        assert asked(server, key).status_code == 200
        [key_id] = re.findall(r"key_\w{26}", server.loam("keys", "list", "--org", "acme"))
        server.loam("keys", "revoke", key_id)
        until(lambda: asked(server, key).status_code == 401, within_seconds=5)
        assert key not in server.log


def test_engines_and_gpus_are_shown_from_outside(tmp_path: Path) -> None:
    reserved = {"LOAM_DEVICES": '["A100:2", "CPU:1"]', "LOAM_DEVICES_FOR_TRAINING": "[1]", "LOAM_LEASE_SECONDS": "2"}
    reserved["COLUMNS"] = "160"
    with running_server(tmp_path, "--simulate", command="serve", **reserved) as server:
        server.loam("orgs", "create", "acme")
        key = server.loam("keys", "create", "--org", "acme").strip()
        assert asked(server, key, **{"X-GPU-Preference": "A100"}).status_code == 200
        shown = until(lambda: text if "ready" in (text := server.loam("engines")) else "")
        assert re.search(r"loam/demo +│ A100 +│ ready", shown), shown
        gpus = server.loam("gpus")
        assert re.search(r"A100 +│ engines and training +│ +1 +│ +0 +│ 80.0 GiB +│ .*│ 0: loam/demo", gpus), gpus
        assert re.search(r"A100 +│ training +│ +1 +│ +1 ", gpus), gpus


def test_a_first_start_prints_a_key_and_a_line_that_works_once(tmp_path: Path) -> None:
    with running_server(tmp_path, "--simulate") as server:
        [line] = [line for line in server.log.splitlines() if line.startswith("curl ")]
        answer = subprocess.run(["bash", "-c", f"{line} -sS"], check=False, capture_output=True, text=True, timeout=30)
        assert '"chat.completion"' in answer.stdout, answer.stderr
        argv = [sys.executable, "-m", "app", "up", "--simulate", "--port", str(server.port)]
        taken = subprocess.run(argv, env=server.env, check=False, capture_output=True, text=True, timeout=60)
        assert taken.returncode == 1
        assert f"{server.port} cannot be used" in taken.stderr
        assert "Traceback" not in taken.stderr
        assert server.stop() == 0
        assert sockets(server) == leftovers(server) == []
    with running_server(tmp_path, "--simulate") as again:
        assert len(re.findall(r"^curl ", again.log, re.MULTILINE)) == 1


def test_a_gateway_that_was_killed_leaves_nothing_that_a_new_one_does_not_clear(tmp_path: Path) -> None:
    server = start_server(tmp_path, "--simulate")
    key = server.new_org().key
    assert asked(server, key).status_code == 200
    server.stop(signal.SIGKILL)
    with running_server(tmp_path, "--simulate") as again:
        assert sockets(again) == []
        assert asked(again, key).status_code == 200
        assert len(sockets(again)) == 1
    until(lambda: not leftovers(again))


def test_a_command_that_runs_no_server_does_not_wait_for_its_imports() -> None:
    script = "import sys, app.cli; sys.exit('fastapi' in sys.modules or 'uvicorn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize("arguments", [("gc",), ("jobs", "cancel", "ftjob-missing")])
def test_a_command_does_in_a_process_of_its_own_what_it_does_in_that_of_the_tests(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    here, argv = run(tmp_path, *arguments), [sys.executable, "-m", "app", *arguments]
    env = {"LOAM_DATA_DIR": str(tmp_path)}
    there = subprocess.run(argv, env=env, check=False, capture_output=True, text=True, timeout=60)
    assert (there.returncode, there.stdout, there.stderr) == (here.returncode, here.stdout, here.stderr)


def test_garbage_is_shown_and_then_removed(tmp_path: Path) -> None:
    leftover = tmp_path / "files" / f"{new_id('file')}.part"
    assert "nothing to remove" in run(tmp_path, "gc").stdout
    leftover.write_bytes(b"x" * 2000)
    os.utime(leftover, (1, 1))
    assert re.search(r"broken uploads +│ +1 +│ 2.0 kB", run(tmp_path, "gc", "--dry-run").stdout)
    assert leftover.exists()
    assert "broken uploads" in run(tmp_path, "gc").stdout
    assert not leftover.exists()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("gpus: {CPU: {memory_gib: 0, dollars_per_hour: 1}}\nmodels:\n  - id: a/b\n    weights: [1]\n", 4, "weights"),
        ("gpus: {}\nmodels: []\n", 2, "models"),
        ("gpus: {\n", 2, ""),
    ],
)
def test_a_wrong_catalog_is_refused_at_start_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    catalog = tmp_path / "models.yaml"
    catalog.write_text(text)
    refused = run(tmp_path, "up", "--simulate", "--port", "0", LOAM_CATALOG=str(catalog))
    assert refused.returncode == 1
    assert f"{catalog}, line {line}: " in refused.stderr
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LOAM_LEASE_SECONDS", "soon", "LOAM_LEASE_SECONDS"),
        ("LOAM_LOG_LEVEL", "loud", "LOAM_LOG_LEVEL: Input should be 'debug', 'info'"),
        ("LOAM_DEVICES", "A100", "LOAM_DEVICES"),
        ("LOAM_DEVICES", '["T4:2"]', "LOAM_DEVICES: 'T4:2' is not TYPE or TYPE:COUNT"),
        ("LOAM_ENGINE_EXTRA_ARGS", "--flag", "engine_extra_args"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, name: str, value: str, words: str) -> None:
    refused = run(tmp_path, "up", "--simulate", "--port", "0", **{name: value})
    assert refused.returncode in (1, 2)
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr
