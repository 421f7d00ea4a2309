"""`python -m app.engines.simulated`: a process that speaks vLLM's HTTP on a Unix socket, without a model."""

import argparse
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import uvicorn

from app.engines.simulated_engine import create_app

log = logging.getLogger("simulated")


class PromptServer(uvicorn.Server):
    """Leaves at once on a signal, as vLLM does, and lets no request hold it up."""

    ignores_sigterm = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        log.info("Application startup complete.")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not (self.ignores_sigterm and sig == signal.SIGTERM):
            self.should_exit = self.force_exit = True


def parse_faults(named: Sequence[str]) -> dict[str, float | None]:
    """`slow:2` -> {"slow": 2.0}; the names are those of a request's directives, and those of the start."""
    parts = [name.partition(":") for name in named]
    return {name: float(value) if value else None for name, _, value in parts}


def parse_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """The flags that matter here; every other one of vLLM's is accepted and means nothing."""
    parser = argparse.ArgumentParser(prog="simulated", description=__doc__, allow_abbrev=False)
    parser.add_argument("--uds", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--max-model-len", type=int, default=4096)
    parser.add_argument("--max-lora-rank", type=int, default=16)
    parser.add_argument("--reasoning-parser", default="")
    parser.add_argument("--simulate-tokens-per-second", type=float, default=200.0, help="0: as fast as it can")
    parser.add_argument("--simulate-start-seconds", type=float, default=0.0)
    parser.add_argument("--simulate-fault", action="extend", nargs="+", default=[], metavar="NAME[:ARG]")
    flags, _others = parser.parse_known_args(arguments)
    flags.served_model_name = flags.served_model_name or [flags.model]
    flags.faults = parse_faults(flags.simulate_fault)
    return flags


def load(flags: argparse.Namespace) -> None:
    """What takes vLLM its time at start, or stops it."""
    log.info("Starting to load model %s...", flags.model)
    if "start_hangs" in flags.faults:
        threading.Event().wait()
    time.sleep(flags.simulate_start_seconds)
    if "start_fails" in flags.faults:
        log.error("EngineCore failed to start: CUDA out of memory. Tried to allocate 2.00 GiB.")
        raise RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}")
    log.info("Loading weights took %.2f seconds", flags.simulate_start_seconds)


def main() -> None:
    flags = parse_flags(sys.argv[1:])
    line = "(APIServer pid=%(process)d) %(levelname)s %(asctime)s [%(filename)s:%(lineno)d] %(message)s"
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format=line, datefmt="%m-%d %H:%M:%S")
    if "ignore_sigterm" in flags.faults:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    # Bound before the load, as vLLM does: a stale socket file fails at once.
    listener.bind(str(flags.uds))
    load(flags)
    marked = [("x-simulated", "true")]
    config = uvicorn.Config(create_app(flags), log_config=None, access_log=False, lifespan="off", headers=marked)
    server = PromptServer(config)
    server.ignores_sigterm = "ignore_sigterm" in flags.faults
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
