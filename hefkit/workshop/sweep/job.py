"""A candidate as work for any machine: the files that it needs, by content, its command, and the key of its result."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from hefkit import __version__
from hefkit.errors import DataError
from hefkit.files import is_plain
from hefkit.measure.labels import label_path, labelled_pictures
from hefkit.text import one_line
from hefkit.workshop.calibration.read import CalibrationSet
from hefkit.workshop.compile.har import record_path
from hefkit.workshop.compile.paths import EMULATED
from hefkit.workshop.compile.run import Compilation, Options
from hefkit.workshop.sweep.settings import Candidate, Places, Settings, arguments
from hefkit.workshop.sweep.worker import OUT, RUN, sources

BLOCK = 1 << 20
PARSED = "parsed"
LEVEL_OF_CARDS = 2  # from this level on a graphics card saves hours
HAR, NAMES = "parsed.har", "names.json"
LOCAL = Places("model.onnx", "calib", "script.mscript", OUT, f"{OUT}/{RUN}")


@dataclass(frozen=True)
class Blob:
    """The content of a file that a worker needs."""

    digest: str  # sha256
    content: Path | bytes

    @staticmethod
    def of(content: Path | bytes) -> Blob:
        """The blob of a file or of bytes, hashed; raises DataError for a file that cannot be read."""
        digest = hashlib.sha256()
        if isinstance(content, bytes):
            digest.update(content)
            return Blob(digest.hexdigest(), content)
        try:
            with open(content, "rb") as file:
                while block := file.read(BLOCK):
                    digest.update(block)
        except OSError as exc:
            raise DataError(f"cannot read {content}: {exc.strerror}; check it, and run again") from exc
        return Blob(digest.hexdigest(), content)

    def read(self) -> bytes:
        """The whole content."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


@dataclass(frozen=True)
class Job:
    """The work for a worker. Paths are relative to the folder that the worker makes for it."""

    candidate: Candidate
    key: str  # sha256 of all that decides the result
    product: str  # the result that must be there, in the candidate's folder
    inputs: Mapping[str, Blob]  # place in the worker's folder -> content
    words: tuple[str, ...]  # the command line there
    command: str  # the same for the user, to repeat it by hand
    script: str | None  # of the model script, where it is not the user's own file
    sdk: bool
    card: bool  # a machine with a graphics card computes it much faster

    @property
    def name(self) -> str:
        """The candidate's name."""
        return self.candidate.name

    def wire(self, sdk_python: str | None, place: int) -> dict[str, Any]:
        """The argument of the worker's `perform`; `place` is the worker's number among those of its machine."""
        return {
            "inputs": {place: blob.digest for place, blob in self.inputs.items()},
            "words": list(self.words),
            "sdk": self.sdk,
            "sdk_python": sdk_python,
            "place": place,
        }


class Jobs:
    """Makes jobs of candidates; every input is read and hashed once.

    Args:
        run: has passed its preflight; its options are those of the command line, its run folder is that of the sweep.
        names: --names as given.

    Attributes:
        stem: name of the network.
        sdk: version of the SDK that compiles, once it is known; None with --emulate.
    """

    def __init__(self, run: Compilation, names: str | None) -> None:
        assert run.file is not None
        base = run.options
        self.base, self.folder, self.names = base, base.run_dir, names
        self.stem = re.sub(r"\W+", "_", base.onnx.stem)[:60] or "model"
        self.sdk: str | None = None
        self._size, self._opened = run.file.size, run.calibration
        self._model = {base.onnx.name: Blob.of(base.onnx), **_external(base.onnx)}
        self._data = {} if base.data is None else _labelled(base.data)
        self._sets: dict[tuple[Path, int | None], tuple[dict[str, Blob], str, str]] = {}

    def parse(self, arch: str, calib: Path | None) -> Job:
        """The job that only parses, for all candidates of a chip; `calib` as in their settings: it must exist."""
        return self.make(Candidate(f"{PARSED}-{arch}", Settings(hw_arch=arch, calib=calib)), parse_only=True)

    def make(self, candidate: Candidate, har: Path | None = None, *, parse_only: bool = False) -> Job:
        """The job of a candidate; it starts from a parsed HAR if one is given."""
        options = replace(candidate.settings.applied(self.base), parse_only=parse_only)
        # the parsed network keeps the name of the ONNX: it becomes part of every layer's name
        name = self.stem if parse_only else candidate.name
        product = name + (EMULATED if options.emulate else ".hef")
        inputs, here, digest = self._inputs(options, f"{OUT}/{name}")
        decisive = sorted(
            (place, blob.digest) for place, blob in inputs.items() if not place.startswith(f"{LOCAL.calib}/")
        )
        own_har = None if self.base.har is None else Blob.of(self.base.har).digest
        facts = [__version__, sources(), decisive, digest, arguments(options, here), self.sdk, own_har]
        if har is not None:
            inputs[HAR], here = Blob.of(har), replace(here, har=HAR)
            if record_path(har).exists():
                inputs[record_path(Path(HAR)).name] = Blob.of(record_path(har))
        changed = options.script is not self.base.script
        return Job(
            candidate=candidate,
            key=hashlib.sha256(json.dumps(facts).encode()).hexdigest(),
            product=f"{RUN}/{name}.parsed.har" if parse_only else product,
            inputs=inputs,
            words=tuple(arguments(options, here)),
            command=self._command(candidate.name, options, har, changed=changed),
            script=options.script.text if changed else None,
            sdk=not options.emulate,
            card=not options.emulate and (options.level or 0) >= LEVEL_OF_CARDS,
        )

    def _inputs(self, options: Options, output: str) -> tuple[dict[str, Blob], Places, str]:
        """The files that a worker needs, their places on the worker, and the digest of the calibration pictures."""
        files, digest, where = self._calibration(options)
        inputs = {**self._model, **files, **self._data, LOCAL.script: Blob.of(options.script.text.encode())}
        here = replace(LOCAL, onnx=f"./{options.onnx.name}", calib=where, output=output)
        if self._data:
            here = replace(here, data="data/data.yaml")
        if options.names is not None:
            inputs[NAMES] = Blob.of(json.dumps({str(k): v for k, v in options.names.items()}).encode())
            here = replace(here, names=NAMES)
        return inputs, here, digest

    def _command(self, name: str, options: Options, har: Path | None, *, changed: bool) -> str:
        """The command that does the same by hand, in the same folder."""
        folder = self.folder / name
        places = Places(
            onnx=str(options.onnx),
            calib=str(options.calib),
            script=str(folder / LOCAL.script) if changed else options.script.source,
            output=str(folder / name),
            run_dir=str(folder / RUN),
            data=options.data,
            names=self.names,
            har=None if har is None else str(har),
            sdk_python=None if options.sdk_python is None else str(options.sdk_python),
        )
        return shlex.join(["python3", "compile_to_hef.py", *arguments(options, places)])

    def _calibration(self, options: Options) -> tuple[dict[str, Blob], str, str]:
        """The files of a set in the worker's folder, the digest of its pictures, and its path there."""
        known = self._sets.get((options.calib, options.num_samples))
        if known is not None:
            return known
        ours = (options.calib, options.num_samples) == (self.base.calib, self.base.num_samples)
        opened = self._opened if ours and self._opened is not None else None
        opened = opened or CalibrationSet(options.calib, self._size, options.num_samples)
        files = {f"{LOCAL.calib}/{path.name}": Blob.of(path) for path in opened.files}
        where = LOCAL.calib if options.calib.is_dir() else f"{LOCAL.calib}/{options.calib.name}"
        found = files, str(opened.digest), where
        self._sets[options.calib, options.num_samples] = found
        return found


def _external(path: Path) -> dict[str, Blob]:
    """The files beside an ONNX in which it keeps its weights."""
    model = onnx.load(str(path), load_external_data=False)
    places = {ExternalDataInfo(t).location for t in model.graph.initializer if uses_external_data(t)}
    return {place: Blob.of(path.parent / place) for place in sorted(places) if is_plain(place)}


def _labelled(data: str) -> dict[str, Blob]:
    """The val pictures of a data.yaml and their labels, as a small dataset of the same order."""
    items, names = labelled_pictures(data, "val")
    files: dict[str, Blob] = {}
    for number, item in enumerate(items):
        files[f"data/images/val/{number:06d}{item.path.suffix}"] = Blob.of(item.path)
        if label_path(item.path).is_file():
            files[f"data/labels/val/{number:06d}.txt"] = Blob.of(label_path(item.path))
    described = {
        "path": ".",
        "val": "images/val",
        "names": {str(k): one_line(v, 200) for k, v in (names or {}).items()},
    }
    files["data/data.yaml"] = Blob.of(json.dumps(described).encode())
    return files
