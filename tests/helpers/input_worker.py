"""Reads damaged input files in a separate process, to measure their memory and time without those of the tests.

    python -m tests.helpers.input_worker KIND

stdin has one path a line. stdout has a JSON object for each: the outcome and the seconds of processor time. A last
object has the peak memory of all files, without that of the imports. A file that takes longer than HANG_S, or WAIT_S
while other programs use the processor, ends the process.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hefkit.errors import HefkitError
from hefkit.results.folder import OutputOptions, plan_run
from hefkit.spec_file import read_spec
from hefkit.text import one_line
from tests.helpers.hef_worker import memory, say

HANG_S = 10  # seconds of processor time for one file
WAIT_S = 200  # seconds


def onnx(path: Path) -> None:
    """As compile_to_hef.py --check begins: read, make static, find the heads."""
    from hefkit.workshop.heads.discover import discover
    from hefkit.workshop.network.file import load_onnx

    discover(load_onnx(path))


def spec(path: Path) -> None:
    """The JSON beside a model."""
    read_spec(path)


def manifest(path: Path) -> None:
    """The JSON of a calibration set, which lies in the folder of `path`."""
    from hefkit.workshop.calibration.folder import check_target
    from hefkit.workshop.calibration.read import CalibrationSet

    try:
        check_target(path.parent, "elsewhere", 3, "png", overwrite=True)
    finally:
        CalibrationSet(path.parent, (32, 32))


def run_record(path: Path) -> None:
    """The JSON of a folder of results."""
    plan_run(path.parent, [], OutputOptions())


def yaml(path: Path) -> None:
    """A data.yaml, for its pictures and for its names."""
    from hefkit.names import parse_names
    from hefkit.workshop.calibration.dataset import find_dataset

    try:
        find_dataset(str(path), None, Path("out"))
    finally:
        parse_names(str(path))


def names(path: Path) -> None:
    """A list of class names."""
    from hefkit.names import parse_names

    parse_names(str(path))


def script(path: Path) -> None:
    """A model script."""
    from hefkit.workshop.script.read import read_script

    read_script(path)


def label(path: Path) -> None:
    """The boxes of one picture."""
    from hefkit.measure.labels import read_labels

    read_labels(path, (640, 480), 3)


READERS: dict[str, Callable[[Path], None]] = {
    function.__name__: function for function in (onnx, spec, manifest, run_record, yaml, names, script, label)
}


def main() -> None:
    """Read the files that stdin names."""
    logging.disable()
    read = READERS[sys.argv[1]]
    first, before = True, 0
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, HANG_S)
        signal.alarm(WAIT_S)
        start = time.process_time()
        outcome = attempt(read, Path(line.rstrip("\n")))
        if first:  # the good file, which loads what is needed
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
            first, before = False, memory("VmRSS")
        say({"outcome": outcome, "seconds": time.process_time() - start})
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    say({"grown_mb": (memory("VmHWM") - before) / 1024})


def attempt(read: Callable[[Path], None], path: Path) -> str:
    """`read`, `refused`, or the unexpected exception."""
    try:
        read(path)
    except HefkitError as exc:
        return "refused" if "\n" not in one_line(exc) else "more than one line"
    except BaseException as exc:  # noqa: BLE001 - the test reports every exception
        return f"{type(exc).__name__}: {exc}"
    return "read"


if __name__ == "__main__":
    main()
