"""Becomes an engine: imports what takes long, waits for its order, and runs the module that the order names.

preloaded.py FOLDER NICENESS [MODULE…]        FOLDER tells who looks at the process list whose engine it is

The order is one line of JSON on standard input (see launcher.py); at its end without one, whoever would have given it
is gone, and so are we. What the module starts with multiprocessing's `spawn` is forked from the state before the order
instead of importing everything again: vLLM starts two such processes, one after the other.

A script of its own, without imports of ours: the engine's Python runs it, in whose environment we may not be.
"""

import gc
import importlib
import json
import multiprocessing.context
import os
import runpy
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker, spawn
from pathlib import Path
from typing import Any


def main() -> None:
    _folder, niceness, *modules = sys.argv[1:]
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    began = time.monotonic()
    preload(modules, int(niceness))
    with suppress(OSError):  # a full disk takes the word and nothing else; a print would try again later, and fail
        os.write(1, b"standing by after %.1f seconds\n" % (time.monotonic() - began))
    line = sys.stdin.readline()
    if line:
        obey(json.loads(line))


def preload(modules: Sequence[str], niceness: int) -> None:
    """In a thread, since only a thread can be nice for a while: nobody but root takes niceness back."""
    thread = threading.Thread(target=_import_all, args=(modules, niceness))
    thread.start()
    thread.join()
    while Path(f"/proc/self/task/{thread.native_id}").exists():  # the kernel takes a moment longer
        time.sleep(0.001)
    gc.collect()
    gc.freeze()  # else a collection in a child would touch, and so copy, all that it shares with us


def _import_all(modules: Sequence[str], niceness: int) -> None:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # else NumPy starts threads, and we could not be forked
    if niceness:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001 - the engine that needs it will say so, where it is looked for
            traceback.print_exc()


def obey(order: dict[str, Any]) -> None:
    """Become the engine; returns when it has ended."""
    _write_to(order["log"])
    os.environ.update(order["env"])
    module, arguments = order["module"], order["arguments"]
    if has_touched_a_gpu():  # before it knew which
        os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - no shell is what we want
    if order["fork_socket"] and can_be_forked():
        fork_what_is_spawned(order["fork_socket"])
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _write_to(log: str) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    with suppress(OSError):
        sys.stdout.flush()
    for ours, theirs in ((nothing, 0), (handle, 1), (handle, 2)):
        os.dup2(ours, theirs)
    os.close(handle)
    os.close(nothing)


def can_be_forked() -> bool:
    """A thread's locks would stay locked in a child, for ever."""
    return len(list(Path("/proc/self/task").iterdir())) == 1


def has_touched_a_gpu() -> bool:
    """CUDA opens this when it reads CUDA_VISIBLE_DEVICES, once; NVML, which may be asked at import, does not."""
    return any(_leads_to("/dev/nvidia-uvm", handle) for handle in Path("/proc/self/fd").iterdir())


def _leads_to(path: str, handle: Path) -> bool:
    try:
        return str(handle.readlink()) == path
    except FileNotFoundError:  # the one that listed the others
        return False


def fork_what_is_spawned(path: str) -> None:
    """From here on `spawn` means a fork of this process as it is now, also in its children, and in theirs."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    alive_read, alive_write = os.pipe()
    _ask_us_instead_of_a_new_server(path, alive_write)
    _tell_children_the_environment()
    contexts: Any = multiprocessing.context._concrete_contexts  # type: ignore[attr-defined]  # noqa: SLF001
    contexts["spawn"] = contexts["forkserver"]
    if os.fork() == 0:
        os.close(alive_write)
        _serve_forks(listener, alive_read)
    os.close(alive_read)
    listener.close()


def _ask_us_instead_of_a_new_server(path: str, alive: int) -> None:
    server: Any = forkserver._forkserver  # noqa: SLF001
    server.ensure_running = resource_tracker.ensure_running
    server._forkserver_address = path  # noqa: SLF001
    server._forkserver_alive_fd = alive  # noqa: SLF001


def _tell_children_the_environment() -> None:
    """A fork has the environment of before the order; a spawned process has its parent's."""
    tell, prepare = spawn.get_preparation_data, spawn.prepare

    def tell_environment(name: str) -> dict[str, Any]:
        return {**tell(name), "environment": dict(os.environ)}

    def take_environment(data: Mapping[str, Any]) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _become_environment(data["environment"])
        prepare(data)

    spawn.get_preparation_data, spawn.prepare = tell_environment, take_environment


def _become_environment(wanted: dict[str, str]) -> None:
    """Leaves alone what is right already: setproctitle looks for the command line beside it."""
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in wanted.items() if os.environ.get(name) != value})


def _serve_forks(listener: socket.socket, alive: int) -> None:
    """Until nobody is left who could ask. A SIGTERM to the group is for the others: they must not take us for dead."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        forkserver.main(listener.detach(), alive, [])
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
