"""The functions for a worker of the cluster: describe it, keep inputs by their content, run a candidate, stop it.

Arguments and results are plain values. Names from the other side are checked before they are used as paths.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import hefkit
from hefkit.chips import TARGETS
from hefkit.errors import HefkitError
from hefkit.files import PARTIAL, cache_folder, is_plain, replacing
from hefkit.pictures.memory import available_memory
from hefkit.text import one_line
from hefkit.workshop.dfc.machine import gpus
from hefkit.workshop.dfc.ready import get_ready

SCRIPT = Path(hefkit.__file__).resolve().parent.parent / "compile_to_hef.py"
OUT, RUN, LOG = "out", "run", "log.txt"  # the folder of a candidate's results; in it the run folder and the output
MAX_CACHE = 8 << 30  # bytes of inputs that are kept; the oldest go first
MAX_FILE = 1 << 30  # bytes of a result
# what Dask sets for its workers; with these a candidate would compute on one thread and return its memory too often
DASK_SETS = {
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_DIGEST = re.compile(r"[0-9a-f]{64}")
_running: dict[int, subprocess.Popen[bytes]] = {}
_stopped = threading.Event()


@functools.cache
def sources() -> str:
    """The sha256 of hefkit's own files: workers of one sweep must run the same."""
    digest = hashlib.sha256()
    root = SCRIPT.parent
    for path in [*sorted((root / "hefkit").rglob("*.py")), *filter(Path.exists, [SCRIPT])]:
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def describe(sdk: bool, sdk_python: str | None, arch: str) -> dict[str, Any]:
    """The facts about this worker.

    Args:
        sdk: look for Hailo's SDK.
        sdk_python: --sdk-python; where it does not exist on this machine, the SDK is searched for.
        arch: one of the chips to compile for.

    Returns:
        `host`, `python`, `sources`; `refusal`: why it cannot compile, or None; of the SDK `sdk` (its version) and
        `card`: whether it computes on a graphics card; `memory`: free bytes.
    """
    facts: dict[str, Any] = {
        "host": platform.node(),
        "python": platform.python_version(),
        "sources": sources(),
        "memory": available_memory(),
        "sdk": None,
        "card": False,
        "refusal": None if SCRIPT.is_file() else f"{SCRIPT} is missing; expected a whole checkout of hefkit",
    }
    if sdk and facts["refusal"] is None:
        try:
            chip, disk = arch if arch in TARGETS else TARGETS[0], Path(tempfile.gettempdir())
            found = get_ready(_sdk_python(sdk_python), chip, disk, (0, 0), _ignore)
        except HefkitError as exc:
            facts["refusal"] = one_line(exc, 1000)
        else:
            facts.update(sdk=found.version, card=found.has_card)
    return facts


def missing(digests: list[str]) -> list[str]:
    """Those inputs that are not here yet."""
    return [digest for digest in digests if not _blob(digest).exists()]


def store(digest: str, content: bytes) -> None:
    """Keep an input under the hash of its content."""
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"an input of the hash {one_line(digest, 64)} arrived damaged")
    _prune(len(content))
    with replacing(_blob(digest)) as temporary:
        temporary.write_bytes(content)


def perform(job: dict[str, Any]) -> dict[str, Any]:
    """Run one candidate as a process of its own.

    Returns:
        `code`: its exit code; `error`: the text of its error line, or None; `files`: relative name -> bytes;
        `seconds`; `host`.
    """
    _stopped.clear()
    jobs = cache_folder("sweep") / "jobs"
    jobs.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="job-", dir=jobs))
    start = time.monotonic()
    try:
        _fill(folder, job["inputs"])
        code = _run(folder, _words(job), own_card(job["place"]) if job["sdk"] else {})
        files = {} if not folder.is_dir() else _results(folder / OUT)
        lines = files.get(LOG, b"").decode(errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("error: ")] or lines[-1:]
        return {
            "code": code,
            "error": one_line(errors[-1].removeprefix("error: "), 1000) if code and errors else None,
            "files": files,
            "seconds": round(time.monotonic() - start, 1),
            "host": platform.node(),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def stop() -> None:
    """End the candidate that runs here; called in another thread."""
    _stopped.set()
    for process in list(_running.values()):
        with contextlib.suppress(OSError, ValueError):
            assert process.stdin is not None
            process.stdin.close()


def _words(job: dict[str, Any]) -> list[str]:
    words = [str(word) for word in job["words"]]
    python = _sdk_python(job["sdk_python"]) if job["sdk"] else None
    return words if python is None else [*words, "--sdk-python", str(python)]


def _sdk_python(flag: str | None) -> Path | None:
    return Path(flag) if flag is not None and (Path(flag).exists() or shutil.which(flag)) else None


def _fill(folder: Path, inputs: dict[str, str]) -> None:
    """Put the inputs into the folder of a job, as links: they take no space, and stay when the cache is pruned."""
    for place, digest in inputs.items():
        if not is_plain(place):
            raise ValueError(f"{one_line(place, 80)} is not a place in the folder of a job")
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(_blob(digest), target)
        except OSError:
            shutil.copyfile(_blob(digest), target)


def own_card(place: int) -> dict[str, str]:
    """Environment variables: if a machine has several graphics cards, each of its workers takes a different one.

    Args:
        place: the worker's number among those of its machine.
    """
    cards = gpus()
    if len(cards) < 2 or "CUDA_VISIBLE_DEVICES" in os.environ:
        return {}
    return {"CUDA_VISIBLE_DEVICES": cards[place % len(cards)].index, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def _run(folder: Path, words: list[str], settings: dict[str, str]) -> int:
    (folder / OUT).mkdir()
    guard = Path(__file__).with_name("guard.py")
    command = [sys.executable, str(guard), str(folder), sys.executable, str(SCRIPT), *words]
    with open(folder / OUT / LOG, "wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**{k: v for k, v in os.environ.items() if DASK_SETS.get(k) != v}, **settings},
        )
        _running[process.pid] = process
        try:
            if _stopped.is_set():
                stop()
            return process.wait()
        finally:
            del _running[process.pid]
            with contextlib.suppress(OSError, ValueError):
                assert process.stdin is not None
                process.stdin.close()


def _results(out: Path) -> dict[str, bytes]:
    files = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file() and not p.is_symlink()):
        name = path.relative_to(out).as_posix()
        if not name.endswith(".cut.onnx") and PARTIAL not in name and path.stat().st_size <= MAX_FILE:
            files[name] = path.read_bytes()
    return files


def _blob(digest: str) -> Path:
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ValueError(f"{one_line(digest, 80)} is not a sha256")
    return cache_folder("sweep") / "inputs" / digest[:2] / digest


def _prune(needed: int) -> None:
    """Remove the oldest inputs where the cache would grow beyond MAX_CACHE."""
    kept = [(path.stat().st_mtime, path.stat().st_size, path) for path in cache_folder("sweep").glob("inputs/??/*")]
    total = needed + sum(size for _, size, _ in kept)
    for _, size, path in sorted(kept):
        if total <= MAX_CACHE:
            return
        path.unlink(missing_ok=True)
        total -= size


def _ignore(text: str) -> None:
    """Warnings of the SDK's checks: every candidate repeats them in its own log."""
