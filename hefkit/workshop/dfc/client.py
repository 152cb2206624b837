"""Hailo's Dataflow Compiler as typed calls; each failure becomes one sentence with its cure.

with Dfc(sdk, folder, settings) as dfc:
    dfc.start()
    graph = dfc.parse(onnx, "net", end_nodes, "hailo8", parsed_har)
with Dfc(sdk, folder, settings) as dfc:
    dfc.start()
    dfc.open_har(parsed_har, "hailo8")
    dfc.load_script(path)
    dfc.quantize(calibration, quantized_har)

Each step is a process of its own. The SDK forks, and users report that the fork hangs if TensorFlow has already
computed in its parent.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from hefkit.errors import HefkitError, ToolchainError
from hefkit.text import one_line
from hefkit.workshop.dfc.failures import explain, explain_death, is_known
from hefkit.workshop.dfc.find import Sdk
from hefkit.workshop.dfc.graph import ParsedGraph
from hefkit.workshop.dfc.listen import SdkListener
from hefkit.workshop.dfc.machine import oom_kills
from hefkit.workshop.dfc.process import WorkerDied, WorkerFailed, WorkerProcess, sdk_environment

log = logging.getLogger("hefkit")

FULL_PRECISION, QUANTIZED = "SDK_FP_OPTIMIZED", "SDK_QUANTIZED"
ARRAY_BYTES = 2 << 30  # 2 GiB of pictures as float32; more than that are given by a generator

# command of the worker -> what the SDK does, for messages
DOING = {
    "start": "starting",
    "signatures": "listing its calls",
    "parse": "parsing the network",
    "open": "opening the HAR",
    "script": "reading the model script",
    "full_precision": "optimising in full precision",
    "quantize": "quantising",
    "infer": "emulating the network",
    "compile": "compiling",
}
# how Python code refuses an argument; and words of an SDK that wants the calibration pictures in another form
_REFUSALS = ("TypeError", "ValueError")
_FORM_REFUSED = re.compile(r"calib|data_?set|data.?type|dtype|float32|uint8|generator|callable", re.IGNORECASE)


class EmulationError(Exception):
    """The SDK cannot emulate the model that it has just made, so its quality is not known."""


@dataclass(frozen=True)
class CalibrationFile:
    """uint8 RGB pictures (N, H, W, 3) in a `.npy`; the first `count` are used."""

    path: Path
    count: int
    float_bytes: int  # size of these as float32

    def forms(self) -> tuple[str, ...]:
        """Ways to pass them to the SDK; the first one is tried first: the most published one that fits the memory."""
        arrays = ("float32", "dataset", "uint8")
        return arrays if self.float_bytes <= ARRAY_BYTES else ("dataset", "uint8", "float32")


class Dfc:
    """One run of the SDK; use it as a context manager.

    Args:
        sdk: the interpreter.
        folder: working directory of the SDK; `sdk.log` and the SDK's own logs go there.
        settings: environment variables, such as CUDA_VISIBLE_DEVICES.
        shown: lines that are on the console already; lines of this process are added.
        form: the form of the calibration pictures that an earlier process accepted.
    """

    def __init__(
        self, sdk: Sdk, folder: Path, settings: Mapping[str, str], shown: set[str] | None = None, form: str = ""
    ) -> None:
        self.listener = SdkListener(shown)
        self._oom_kills = oom_kills()
        self._har: tuple[Path, str] | None = None  # where another attempt starts, and its chip
        self._script: Path | None = None
        self.form = form
        environment = sdk_environment(sdk.python, {**quiet_settings(folder), **settings})
        try:
            self._worker = WorkerProcess(sdk.python, folder, environment, self.listener)
        except OSError as exc:
            raise ToolchainError(f"cannot start {sdk.python}: {one_line(exc)}; check the SDK's environment") from exc

    def __enter__(self) -> Dfc:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.__exit__(kind, value, trace)

    @property
    def log(self) -> Path:
        """The file with everything that the SDK prints."""
        return self._worker.log

    def start(self) -> dict[str, Any]:
        """Wait until the SDK is imported; returns its `sdk` (version), `python`, `numpy` and `archs`."""
        try:
            return self._worker.wait()
        except WorkerFailed as exc:
            raise self._failure(exc) from exc
        except WorkerDied as exc:
            raise self._death(exc) from exc

    def signatures(self, calls: Sequence[str]) -> dict[str, str | None]:
        """The installed SDK's signatures of `calls`; None where it has no such name."""
        found = self._call("signatures", calls=list(calls))["signatures"]
        return {str(k): None if v is None else str(v) for k, v in found.items()}

    def parse(self, onnx: Path, net_name: str, end_nodes: Sequence[str], hw_arch: str, har: Path) -> ParsedGraph:
        """Translate an ONNX, and save the result as a HAR."""
        answer = self._call(
            "parse", onnx=str(onnx), net_name=net_name, end_nodes=list(end_nodes), hw_arch=hw_arch, har=str(har)
        )
        self._har = (har, hw_arch)
        return ParsedGraph.from_event(answer)

    def open_har(self, har: Path, hw_arch: str) -> tuple[ParsedGraph, dict[str, Any]]:
        """Load a HAR; returns (its graph, a dict with its `hw_arch`, `state` and `script`)."""
        answer = self._call("open", har=str(har), hw_arch=hw_arch)
        self._har = (har, hw_arch)
        return ParsedGraph.from_event(answer), answer

    def load_script(self, path: Path) -> None:
        """Load the model script; it replaces an earlier one."""
        self._script = path
        self._call("script", path=str(path))

    def full_precision(self, calibration: CalibrationFile) -> bool:
        """Apply the script's changes in floating point; False where this SDK does that only in `quantize`."""
        return bool(self._with_data("full_precision", calibration)["ran"])

    def quantize(self, calibration: CalibrationFile, har: Path) -> None:
        """Quantise, and save the result as a HAR."""
        self._with_data("quantize", calibration, har=str(har))

    def infer(self, context: str, pictures: Path, scratch: Path) -> list[np.ndarray]:
        """Emulate the pictures of a `.npy`, uint8 RGB (N, H, W, 3); one float32 (N, H, W, C) for each output.

        Args:
            context: FULL_PRECISION or QUANTIZED.
            scratch: prefix of temporary files; they are deleted, and the arrays stay readable.

        Raises:
            EmulationError: the SDK refuses; the run can continue.
        """
        try:
            answer = self._worker_call("infer", context=context, images=str(pictures), outputs=str(scratch))
        except WorkerFailed as exc:
            raise EmulationError(one_line(exc, 300)) from exc
        tensors = []
        for k in range(len(answer["shapes"])):
            file = Path(f"{scratch}{k}.npy")
            tensors.append(np.load(file, mmap_mode="r", allow_pickle=False))
            file.unlink()
        return tensors

    def compile(self, hef: Path) -> int:
        """Compile into a file; returns its size in bytes."""
        return int(self._call("compile", hef=str(hef))["bytes"])

    def _with_data(self, do: str, calibration: CalibrationFile, **arguments: str) -> dict[str, Any]:
        """A command with calibration pictures; if this SDK refuses one form of them, the next one is tried.

        Not after work has begun: a later failure may come after hours, and its reason is not the form.
        """
        # first the form that the SDK accepted in an earlier call
        forms = sorted(calibration.forms(), key=lambda form: form != self.form)
        for form in forms:
            data = {"images": str(calibration.path), "count": calibration.count, "form": form}
            try:
                answer = self._worker_call(do, **data, **arguments)
            except WorkerFailed as exc:
                if form == forms[-1] or not self._refuses_form(exc):
                    raise self._failure(exc) from exc
                log.warning("the SDK refuses the pictures as %s (%s); trying another form", form, one_line(exc, 160))
                self._start_over()
            else:
                self.form = form
                return answer
        raise AssertionError("the last form either returned or raised")

    def _refuses_form(self, exc: WorkerFailed) -> bool:
        """Whether the SDK refused the form of the pictures, before it did anything with them."""
        refused = exc.kind in _REFUSALS and _FORM_REFUSED.search(exc.message) is not None
        return refused and not self.listener.working and not is_known(str(exc))

    def _start_over(self) -> None:
        """Load the parsed network and its script again: a failed attempt may have changed them."""
        assert self._har is not None
        self._call("open", har=str(self._har[0]), hw_arch=self._har[1])
        if self._script is not None:
            self.load_script(self._script)

    def _call(self, do: str, **arguments: Any) -> dict[str, Any]:
        try:
            return self._worker_call(do, **arguments)
        except WorkerFailed as exc:
            raise self._failure(exc) from exc

    def _worker_call(self, do: str, **arguments: Any) -> dict[str, Any]:
        self.listener.begin_step()
        try:
            return self._worker.call(do, **arguments)
        except WorkerDied as exc:
            raise self._death(exc) from exc

    def _failure(self, exc: WorkerFailed) -> HefkitError:
        self.listener.show_last_lines()
        if oom_kills() > self._oom_kills and not is_known(str(exc)):
            return self._ended(1, exc.do)  # the kernel has ended a process that the SDK had started
        return explain(str(exc), error_lines=self.listener.error_lines(), doing=DOING[exc.do], log=self._worker.log)

    def _death(self, exc: WorkerDied) -> HefkitError:
        self.listener.show_last_lines()
        return self._ended(exc.returncode, exc.do)

    def _ended(self, returncode: int, do: str) -> HefkitError:
        return explain_death(
            returncode,
            doing=DOING[do],
            log=self._worker.log,
            last_lines=self.listener.last,
            oom=oom_kills() > self._oom_kills,
        )


def quiet_settings(folder: Path) -> dict[str, str]:
    """Environment variables: the SDK's logs go to `folder`, its libraries print less; the user's own values stay."""
    wanted = {
        "HAILO_SDK_LOG_DIR": str(folder),
        "HAILORT_LOGGER_PATH": str(folder),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "PYTHONUNBUFFERED": "1",  # lines reach the log at once
        "USER": "hefkit",  # the SDK needs it, and containers do not set it
    }
    return {name: os.environ.get(name, value) for name, value in wanted.items()}
