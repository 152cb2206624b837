"""Checks of what a program passes to the Python API: frames, numbers, classes, names. Errors say what to do.

Standard library only at import.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hefkit.errors import UsageError
from hefkit.text import one_line

if TYPE_CHECKING:
    import numpy as np


def checked_frame(frame: Any) -> np.ndarray:
    """The frame, contiguous; raises ValueError with what to do where it is not (h, w, 3) uint8."""
    import numpy as np

    expected = "expected a frame as a numpy array, (h, w, 3) uint8, in BGR"
    if not isinstance(frame, np.ndarray):
        missing = "; cv2.imread and a camera return None where they fail" if frame is None else ""
        raise ValueError(f"{expected}; got {type(frame).__name__}{missing}")
    got = f"got {frame.shape} {frame.dtype}"
    if frame.ndim == 3 and frame.shape[0] == 3 != frame.shape[2]:
        raise ValueError(f"{expected}; {got}; move its colours last: frame.transpose(1, 2, 0)")
    if frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] in (1, 4)):
        gray = frame.ndim == 2 or frame.shape[2] == 1
        raise ValueError(
            f"{expected}; {got}; convert it: cv2.cvtColor(frame, cv2.COLOR_{'GRAY' if gray else 'BGRA'}2BGR)"
        )
    if frame.ndim == 4:
        raise ValueError(f"{expected}; {got}; give one frame at a time, or all of them to stream()")
    if frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
        raise ValueError(f"{expected}; {got}")
    if frame.dtype != np.uint8:
        raise ValueError(f"{expected}; {got}; scale its values to 0..255 and convert it: frame.astype(numpy.uint8)")
    return np.ascontiguousarray(frame)


def check_number(name: str, value: Any, low: int, high: int, *, whole: bool = True) -> None:
    """Refuse (UsageError) what is not a number from `low` to `high`; numpy's numbers are allowed."""
    kind = numbers.Integral if whole else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:  # type: ignore[operator]
        what = "whole number" if whole else "number"
        limit = f"of at least {low}" if high >= 1 << 30 else f"from {low} to {high}"
        raise UsageError(f"{name} is {one_line(repr(value), 60)}; expected a {what} {limit}")


def class_words(classes: Sequence[int | str] | int | str) -> list[str]:
    """Class ids and names as texts, as on the command line; a single one gives a list of one."""
    items = [classes] if isinstance(classes, int | str) else list(classes)
    if not items:
        raise UsageError("classes is empty; expected class ids or names, or None for all")
    return [str(item) for item in items]


def names_by_id(given: Mapping[int, str] | Sequence[str] | None) -> dict[int, str] | None:
    """Class id -> name; UsageError for anything else."""
    if given is None:
        return None
    if isinstance(given, str):
        raise UsageError(f"names is the text {one_line(given, 40)!r}; expected a list of names or {{0: 'drone'}}")
    names = dict(given) if isinstance(given, Mapping) else dict(enumerate(given))
    if not names or not all(isinstance(key, int) and key >= 0 and isinstance(name, str) for key, name in names.items()):
        raise UsageError("names does not hold texts by class id; expected a list of names or {0: 'drone'}")
    return names
