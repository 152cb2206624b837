"""The program of a warm interpreter: import, wait for orders, fork; a fork runs its script as `__main__`.

    python warm_python.py SOCKET IMPORTS        both are made by warm.py

A fork gets its own arguments, environment, working directory and file descriptors. It has the imported modules, and
the seed of `hash` that all forks share; all else is as in a new interpreter.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
import types
from importlib.machinery import SourceFileLoader
from typing import Any

ORDER_BYTES = 1 << 20
HIGH = 200  # a file descriptor; the orders ask for lower ones


def imported(modules: list[str], path: list[str]) -> dict[str, str]:
    """Import those that are installed; returns the environment variables that they set."""
    before, usual = dict(os.environ), sys.path[1:]  # the first one is the folder of this file
    sys.path[:] = [*path, *usual]
    for module in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    sys.path[:] = usual
    gc.freeze()  # the forks share the memory
    return {name: value for name, value in os.environ.items() if name not in before}


def next_order(orders: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Wait for orders and fork; returns in the forks only."""
    while True:
        data, files, _, _ = socket.recv_fds(orders, ORDER_BYTES, 16)
        if not data:
            os._exit(0)
        reader, writer = os.pipe()
        between = os.fork()  # ends at once, so that its child gets another parent
        if between == 0:
            pid = os.fork()
            if pid == 0:
                for descriptor in (reader, writer, orders.detach()):
                    os.close(descriptor)
                return json.loads(data), files
            os.write(writer, str(pid).encode())
            os._exit(0)
        os.waitpid(between, 0)
        orders.send(os.read(reader, 64))
        for descriptor in (reader, writer, *files):
            os.close(descriptor)


def become(order: dict[str, Any], files: list[int], defaults: dict[str, str]) -> None:
    """Take over what the order says. `defaults`: environment variables that our imports have set."""
    if order["own_session"]:
        os.setsid()
    for k, file in enumerate(files):
        os.dup2(file, HIGH + k, inheritable=False)
        os.close(file)
    for k, wanted in enumerate(order["files"]):
        os.dup2(HIGH + k, wanted)
        os.close(HIGH + k)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update({**defaults, **order["environment"]})
    sys.argv[:] = order["command"]
    more = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [os.path.dirname(os.path.realpath(sys.argv[0])), *more, *sys.path]
    if os.environ.get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def run(script: str) -> None:
    """Run it, and leave out C++'s own end, which would wait for threads that a fork does not have."""
    ending = [1]
    atexit.register(leave, ending)  # the first one is called last
    try:
        sys.modules["__main__"] = module = types.ModuleType("__main__")
        module.__file__ = script
        code = SourceFileLoader("__main__", script).get_code("__main__")  # compiled once, and not for each fork
        exec(code, module.__dict__)  # not by the import system: signals wait for the end of an import
        ending[0] = 0
    except SystemExit as exc:
        ending[0] = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
        raise


def leave(ending: list[int]) -> None:
    """End the process with this exit code."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(ending[0])


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests and their scripts
    variables = imported(**json.loads(sys.argv[2]))
    become(*next_order(socket.socket(fileno=int(sys.argv[1]))), variables)
    run(sys.argv[0])
