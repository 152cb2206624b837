"""Read a calibration set back: the folder with its manifest, or one `.npy`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hefkit.errors import DataError, ModelError
from hefkit.files import MAX_JSON_BYTES, is_plain, read_start
from hefkit.pictures.find import MANIFEST, READABLE
from hefkit.pictures.quiet import quiet_codecs
from hefkit.spec import InputSpec
from hefkit.spec_file import input_from_json
from hefkit.staging.journal import settle
from hefkit.text import counted, log
from hefkit.workshop.calibration.folder import ARRAY, FORMAT, picture_name

ARRAY_TYPES = (np.uint8, np.float32, np.float64)  # floats of other programs: whole numbers only
HELD_OUT_FROM = 80  # pictures; all of a smaller set are used for calibration


class CalibrationSet:
    """Pictures (H, W, 3) uint8 RGB in the order of the manifest; read one at a time.

    Raises (when opened):
        DataError: no such path, not a set, damaged, or of another size than the model's input.
    """

    def __init__(self, path: Path, size: tuple[int, int], limit: int | None = None) -> None:
        self.path = path
        self.size = size
        self._array: np.ndarray | None = None
        self._files: list[Path] = []
        self.fit: str | None = None  # unknown for a bare .npy
        self.digest: str | None = None
        self.source = str(path)  # what it was made from, if the manifest says so
        settle(path if path.is_dir() else path.parent)
        if path.is_dir():
            self._open_folder(path)
        elif path.suffix == ".npy" and path.is_file():
            self._open_npy(path)
        else:
            raise DataError(_nothing(path))
        self.available = len(self._files) if self._array is None else len(self._array)
        if not self.available:
            raise DataError(f"the calibration set {path} is empty; run prepare_calibration.py again")
        self.count = min(limit or self.available, self.available)
        self._verify()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self._read(index)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self._read(i) for i in range(self.count))

    @property
    def files(self) -> list[Path]:
        """The files of the set; if all of them are copied into another folder, that is the same set."""
        folder = self.path if self.path.is_dir() else self.path.parent
        manifest = [folder / MANIFEST] if (folder / MANIFEST).is_file() and self.fit is not None else []
        array = [] if self._array is None else [self.path if self.path.is_file() else folder / ARRAY]
        return [*self._files, *array, *manifest]

    def split(self) -> tuple[list[int], list[int], bool]:
        """(indices for calibration, indices for measuring agreement, whether both are the same pictures)."""
        everything = list(range(self.count))
        if self.count < HELD_OUT_FROM:
            return everything, everything, True
        held = min(16, self.count // 5)
        return everything[:-held], everything[-held:], False

    def _read(self, index: int) -> np.ndarray:
        if self._array is not None:
            return _as_uint8(self._array[index], self.path)
        file = self._files[index]
        try:
            data = np.fromfile(file, np.uint8)
        except OSError as exc:
            raise DataError(f"cannot read {file}: {exc.strerror}; run prepare_calibration.py again") from exc
        with quiet_codecs():
            image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        if image is None:
            raise DataError(f"{file} is damaged; run prepare_calibration.py again")
        if image.shape[:2] != self.size:
            raise DataError(_wrong_size(self.path, (image.shape[0], image.shape[1]), self.size))
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def _open_folder(self, folder: Path) -> None:
        if not (folder / MANIFEST).exists() and (bare := _bare_pictures(folder)):
            self._files = bare
            log.info(
                "%s has no manifest: its %s are taken in the order of their names; how they were fitted into the input "
                "and how they were chosen is unknown",
                folder,
                counted(len(bare), "picture"),
            )
            return
        manifest = _read_manifest(folder)
        spec = _input_spec(folder, manifest)
        if spec.size != self.size:
            raise DataError(_wrong_size(folder, spec.size, self.size))
        self.fit = spec.fit
        self.digest, self.source = str(manifest.get("digest")), str(manifest.get("source") or folder)
        names = [entry.get("file") for entry in manifest["images"] if isinstance(entry, dict)]
        if any(not is_plain(n) or "/" in n for n in names):
            raise DataError(f"the manifest in {folder} names files outside of it; run prepare_calibration.py again")
        if set(names) == {ARRAY}:
            self._array = _open_array(folder / ARRAY, self.size)
            if len(self._array) != len(names):
                raise DataError(
                    f"{folder / ARRAY} holds {len(self._array)} pictures, its manifest lists {len(names)}; "
                    "run prepare_calibration.py again"
                )
        else:
            self._files = [folder / n for n in names if isinstance(n, str)]

    def _open_npy(self, path: Path) -> None:
        self._array = _open_array(path, self.size)
        if path.name == ARRAY and (path.parent / MANIFEST).is_file():
            manifest = _read_manifest(path.parent)
            self.fit, self.digest = _input_spec(path.parent, manifest).fit, str(manifest.get("digest"))
            self.source = str(manifest.get("source") or path)
            return
        kind = "" if self._array.dtype == np.uint8 else f"{self._array.dtype}, its whole numbers are used as uint8; "
        log.info(
            "%s has no manifest: %staken as RGB of 0 to 255; how the pictures were fitted and chosen is unknown",
            path,
            kind,
        )

    def _verify(self) -> None:
        """Read every picture and compare the digest of all with that of the manifest."""
        digest = hashlib.sha256()
        for index in range(self.available):
            digest.update(self._read(index).tobytes())
        found = digest.hexdigest()
        if self.digest is not None and self.digest != found:
            raise DataError(
                f"the pictures of {self.path} are not those of its manifest (digest differs); "
                "run prepare_calibration.py again"
            )
        self.digest = found


def _bare_pictures(folder: Path) -> list[Path]:
    """The pictures of another program's folder, by name; none if the folder is a set of hefkit without its manifest."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in READABLE and not p.name.startswith("."))
    ours = {ARRAY, picture_name(0)} & {p.name for p in files} or (folder / ARRAY).exists()
    return [] if ours else files


def _as_uint8(picture: np.ndarray, path: Path) -> np.ndarray:
    """(H, W, 3) of an array -> uint8; floats must be whole numbers from 0 to 255."""
    if picture.dtype == np.uint8:
        return np.ascontiguousarray(picture)
    whole = (
        picture.astype(np.uint8) if np.isfinite(picture).all() and 0 <= picture.min() <= picture.max() <= 255 else None
    )
    if whole is None or not np.array_equal(whole, picture):
        low, high = float(np.nanmin(picture)), float(np.nanmax(picture))
        raise DataError(
            f"{path} holds {picture.dtype} of {low:g} to {high:g}; expected whole numbers from 0 to 255 (do not divide "
            "by 255: the model script does); make it with prepare_calibration.py --format npy"
        )
    return whole


def _nothing(path: Path) -> str:
    if path.exists():
        return f"{path} is not a calibration set; expected a folder made by prepare_calibration.py or a .npy file"
    return f"the calibration set {path} does not exist; make one with: python3 prepare_calibration.py DATASET"


def _wrong_size(path: Path, found: tuple[int, int], wanted: tuple[int, int]) -> str:
    return (
        f"the calibration set {path} has pictures of {found[0]}x{found[1]}, the model takes {wanted[0]}x{wanted[1]} "
        f"(height x width); run prepare_calibration.py again with --imgsz {wanted[0]} {wanted[1]}"
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST
    try:
        raw = read_start(file, MAX_JSON_BYTES + 1)
        if len(raw) > MAX_JSON_BYTES:
            raise DataError(f"{file} is too large for a manifest; run prepare_calibration.py again")
        manifest = json.loads(raw)
    except FileNotFoundError as exc:
        raise DataError(
            f"{folder} holds no {MANIFEST}; expected a folder made by prepare_calibration.py; run it on your pictures"
        ) from exc
    except (OSError, ValueError, RecursionError) as exc:
        raise DataError(f"{file} cannot be read as JSON; run prepare_calibration.py again") from exc
    described = isinstance(manifest, dict) and isinstance(manifest.get("images"), list)
    if not described or manifest.get("format") != FORMAT:
        raise DataError(f"{file} is not a manifest of format {FORMAT}; run prepare_calibration.py of this hefkit again")
    return manifest


def _input_spec(folder: Path, manifest: dict[str, Any]) -> InputSpec:
    try:
        return input_from_json(manifest.get("input"))
    except ModelError as exc:  # the same check as in a spec, but here the data is wrong, not the model
        raise DataError(f"the manifest in {folder} cannot be used: {exc}; run prepare_calibration.py again") from exc


def _open_array(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Memory-mapped, so that a large set needs no memory. A pickle is refused: loading one runs code."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as exc:
        raise DataError(
            f"{path} cannot be read as a NumPy array; run prepare_calibration.py --format npy again"
        ) from exc
    if not isinstance(array, np.ndarray) or array.dtype not in ARRAY_TYPES or array.ndim != 4 or array.shape[3] != 3:
        shape = getattr(array, "shape", None)
        raise DataError(
            f"{path} holds {getattr(array, 'dtype', 'several arrays')} {shape}; expected uint8 (N, H, W, 3) RGB; "
            "make it with prepare_calibration.py --format npy"
        )
    if array.shape[1:3] != size:
        raise DataError(_wrong_size(path, (array.shape[1], array.shape[2]), size))
    return array
