"""Failures on purpose: HAILO_DOUBLE names a file with a JSON object.

at: {moment: action or list of actions}; moments import, parse, script, full_precision, optimize, infer, compile;
    actions: {"raise": [class, message]} {"wrapped": [class, message]}
             {"kill": signal} {"exit": code} {"hang": true} {"garbage": true}
             {"print": [lines]} {"child": file}   a child process that sleeps; its pid goes into the file
    wrapped: as a child process of the SDK fails, with its whole traceback in the message
import_error: text                  the import fails
first_start: true                   the import checks the machine and asks a question, as after an installation
state_words: true                   states are called `Quantized Model`, not `quantized_model`
processes: file                     gets the process id of each import
device: text                        where TensorFlow computes, such as /device:GPU:0; "broken": cuDNN is missing
refuses_late: true                  a form of the pictures is refused after the statistics have begun
pictures_look: "normalized" | "twice"   what the SDK thinks of the calibration pictures
fewer_bits: [layers], snr: number   outputs that keep little of their signal
reduce_level: [N, why]              an explicit level is lowered; why: "gpu" | "data" | "both"
few_pictures_will_do: true          a pass that asks for more pictures than there are continues with a warning
four_bit: [layers]                  these layers get weights in 4 bit, although the script does not ask for it
skip_finetune, fewer: N             fine-tuning is skipped, or runs on N pictures
silent: true                        no log lines at all
collapse: true                      the quantised box tensors lose their spread
wrong_colours: true                 the network's input channels are swapped, in every emulation
refuse_forms: [float32, uint8, dataset]   calibration data that this version refuses
no_full_precision: true             this version has no optimize_full_precision
reverse_outputs, no_original_names  other answers of the parser that public sources allow
reverse_emulation, dict_emulation, raw_emulation   the same for the emulation; raw: logits in spite of a sigmoid
contexts: N                         of the compiled network; 3 by default
hef: {arch, demote, stale, nms, drop, logits, broken, name}   a HEF that differs from what was asked for
compile_returns: "path"             compile() returns a path, not bytes
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any


@functools.lru_cache(maxsize=None)  # not when this is imported: the tests import it before they fork
def _behaviour() -> dict[str, Any]:
    path = os.environ.get("HAILO_DOUBLE")
    if not path:
        return {}
    with open(path, encoding="utf-8") as file:
        return dict(json.load(file))


@functools.lru_cache(maxsize=None)
def version() -> str:
    """The release that this environment holds."""
    return importlib.metadata.version("hailo-dataflow-compiler")


def wanted(name: str, default: Any = None) -> Any:
    """The value of a behaviour in the file, or None."""
    return _behaviour().get(name, default)


def note_process() -> None:
    """Write down the number of this process, where that is wanted."""
    if wanted("processes"):
        with open(wanted("processes"), "a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")


def act(moment: str) -> None:
    """Do what the file asks for at this moment."""
    actions = wanted("at", {}).get(moment, [])
    for action in actions if isinstance(actions, list) else [actions]:
        for name, value in action.items():
            _ACTIONS[name](value)


def say(level: str, text: str) -> None:
    """A log line, on stdout and in the SDK's own log, as the real SDK does."""
    if wanted("silent"):
        return
    print(f"[{level}] {text}")
    folder = os.environ.get("HAILO_SDK_LOG_DIR", ".")
    with open(os.path.join(folder, "hailo_sdk.client.log"), "a", encoding="utf-8") as file:
        file.write(f"2026-01-01 00:00:00,000 - {level.upper()} - client_runner.py - {text}\n")


def _raise(value: list) -> None:
    name, message = value
    builtin = {"OSError": OSError(28, message), "MemoryError": MemoryError(message)}
    raise builtin.get(name) or type(str(name), (Exception,), {})(message)


class SubprocessTracebackFailure(Exception):
    """What fails in a child process of the SDK arrives as this; its source lines hold misleading words."""


def _wrapped(value: list) -> None:
    name, message = value
    raise SubprocessTracebackFailure(
        "Subprocess failed with traceback\n\nTraceback (most recent call last):\n"
        '  File "/v/site-packages/hailo_model_optimization/tools/subprocess_wrapper.py", line 73, in child_wrapper\n'
        "    func(self, *args, **kwargs)\n"
        '  File "/v/site-packages/hailo_model_optimization/flows/optimization_flow.py", line 239, in step1\n'
        "    self.core_quantization(calib_data, dataset_size=more_than_enough, dtype=float32)\n"
        f"hailo_model_optimization.acceleras.utils.acceleras_exceptions.{name}: {message}\n"
    )


def first_start() -> None:
    """The block of words of the first import, as published."""
    os.makedirs(".install_logs")
    for line in FIRST_START.splitlines():
        print(line, flush=True)


FIRST_START = """\
[info] First time Hailo Dataflow Compiler is being used. Checking system requirements... (this might take a few seconds)
[Error] Unsupported release - 24.04. Only 20.04 22.04 are supported.
[Error] See full log: /run/.install_logs/hailo_installation_log_2026.01.01T00:00:00.log
[Error] The SDK requires 16 GB of RAM (32 GB recommended), while this system has only 9 GB.
[Error] See full log: /run/.install_logs/hailo_installation_log_2026.01.01T00:00:00.log
[Warning] CUDNN version should be 8.9 or higher, found ..
Component                                Requirement                    Found
==========  ==========       ==========  ==========
OS                                       Ubuntu               Ubuntu                                        Required
RAM(GB)                                  16                   9                                             Required
Continue? [Y/n]
No response"""


def _garbage(value: Any) -> None:
    sys.stdout.flush()
    os.write(1, b'\x00\xff\x1b[31m{"done": "parse", "result": {}}\n\r\r\x07' + bytes(range(256)) * 40)
    os.write(2, b'{"failed": "parse"}\n' + b"\xf0\x9f" * 5000)


def _hang(value: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM) if value == "deaf" else (signal.SIGINT,):
        signal.signal(number, signal.SIG_IGN)  # the real SDK ignores Ctrl-C during fine-tuning
    print("[info] hanging", flush=True)
    while True:
        time.sleep(3600)


def _child(path: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    with open(path, "w", encoding="utf-8") as file:
        file.write(str(child.pid))


def _print(lines: list) -> None:
    for line in lines:
        print(line, flush=True)


_ACTIONS = {
    "raise": _raise,
    "wrapped": _wrapped,
    "kill": lambda number: os.kill(os.getpid(), number),
    "exit": os._exit,
    "hang": _hang,
    "garbage": _garbage,
    "print": _print,
    "child": _child,
}
