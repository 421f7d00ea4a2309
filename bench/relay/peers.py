"""The peers: where each comes from, and the configuration its makers recommend for one engine behind it."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.load import Target
from bench.processes import free_port, running, tree_of, until_answered
from bench.relay.sides import MODEL, Place, Side, until_asked

ENVS = Path(__file__).parent.parent / ".envs"
LITELLM_KEY = "sk-bench"
NGINX_CONF = """\
worker_processes 1;
worker_rlimit_nofile 20000;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/server.log;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_body_buffer_size 128k;
  keepalive_requests 1000000000;
  upstream engine {{
    server 127.0.0.1:{engine_port};
    keepalive 512;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://engine;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 3600s;
    }}
  }}
}}
"""
LITELLM_CONFIG = """\
model_list:
  - model_name: {model}
    litellm_params:
      model: hosted_vllm/{model}
      api_base: http://127.0.0.1:{engine_port}/v1
      api_key: none
litellm_settings:
  set_verbose: false
  request_timeout: 3600
general_settings:
  master_key: {key}
"""


class CannotInstall(Exception):
    """The message says what went wrong."""


@asynccontextmanager
async def nginx(place: Place) -> AsyncIterator[Target]:
    program = shutil.which("nginx") or str(await _debian("nginx", "usr/sbin/nginx"))
    port, conf = free_port(), place.folder / "nginx.conf"
    conf.write_text(NGINX_CONF.format(folder=place.folder, port=port, engine_port=place.engine_port))
    log = place.folder / "server.log"
    argv = [program, "-p", str(place.folder), "-c", str(conf), "-e", str(log)]
    async with _gateway(place, argv, port, "/health") as target:
        yield target


@asynccontextmanager
async def vllm_router(place: Place) -> AsyncIterator[Target]:
    program = await _from_pypi("vllm-router", "vllm-router==0.1.17")
    port, metrics = free_port(), free_port()
    argv = [
        *(str(program / "vllm-router"), "--host", "127.0.0.1", "--port", str(port)),
        *("--worker-urls", f"http://127.0.0.1:{place.engine_port}", "--policy", "round_robin"),
        *("--prometheus-port", str(metrics), "--log-level", "warning"),
    ]
    async with _gateway(place, argv, port, "/health") as target:
        yield target


@asynccontextmanager
async def sglang_router(place: Place) -> AsyncIterator[Target]:
    program = await _from_pypi("sglang-router", "sglang-router==0.3.2")
    port, metrics = free_port(), free_port()
    argv = [
        *(str(program / "smg"), "launch", "--host", "127.0.0.1", "--port", str(port)),
        *("--worker-urls", f"http://127.0.0.1:{place.engine_port}", "--policy", "round_robin"),
        *("--prometheus-port", str(metrics), "--log-level", "warn"),
    ]
    async with _gateway(place, argv, port, "/health") as target:
        yield target


@asynccontextmanager
async def litellm(place: Place) -> AsyncIterator[Target]:
    program = await _from_pypi("litellm", "litellm[proxy]==1.106.2")
    port, config = free_port(), place.folder / "config.yaml"
    config.write_text(LITELLM_CONFIG.format(model=MODEL, engine_port=place.engine_port, key=LITELLM_KEY))
    argv = [
        *("env", "LITELLM_MODE=PRODUCTION", "LITELLM_LOG=ERROR", "LITELLM_LOCAL_MODEL_COST_MAP=True"),
        *(str(program / "litellm"), "--config", str(config), "--telemetry", "False"),
        *("--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"),
    ]
    headers = (f"Authorization: Bearer {LITELLM_KEY}",)
    async with _gateway(place, argv, port, "/health/liveliness", headers) as target:
        yield target


PEERS: dict[str, Side] = {
    "nginx": nginx,
    "vllm-router": vllm_router,
    "sglang-router": sglang_router,
    "litellm": litellm,
}


@asynccontextmanager
async def _gateway(
    place: Place, argv: list[str], port: int, health: str, headers: tuple[str, ...] = ()
) -> AsyncIterator[Target]:
    log, url = place.folder / "output.log", f"http://127.0.0.1:{port}"
    async with running(place.cores.for_gateway(argv), log) as pid:
        await until_answered(url + health, pid, log)
        await until_asked(url, Target(MODEL, port, headers=headers), log)
        yield Target(MODEL, port, headers=headers, pids=tuple(tree_of(pid)))


async def _from_pypi(name: str, requirement: str) -> Path:
    """The folder of its commands, in an environment of its own. Raises CannotInstall."""
    home = ENVS / name
    done = home / f".installed-{requirement}"
    if not done.exists():
        await _must(sys.executable, "-m", "venv", str(home))
        await _must(str(home / "bin" / "python"), "-m", "pip", "install", "-q", requirement)
        done.touch()
    return home / "bin"


async def _debian(package: str, program: str) -> Path:
    """A package's program, unpacked beside us. Raises CannotInstall."""
    home = ENVS / package
    if not (home / program).exists():
        home.mkdir(parents=True, exist_ok=True)
        await _must("apt-get", "download", package, cwd=home)
        await _must("dpkg", "-x", str(next(home.glob("*.deb"))), str(home))
    return home / program


async def _must(*argv: str, cwd: Path | None = None) -> None:
    """Raises CannotInstall with the last line it says."""
    pipe = asyncio.subprocess.PIPE
    try:
        child = await asyncio.create_subprocess_exec(*argv, cwd=cwd, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    except OSError as error:
        raise CannotInstall(f"{argv[0]}: {error.strerror}") from error
    told, _ = await child.communicate()
    if child.returncode:
        raise CannotInstall(f"{' '.join(argv[:4])}: {told.decode(errors='replace').strip()[-300:]}")
