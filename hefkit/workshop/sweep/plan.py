"""The sweep file -> candidates: the product of its axes, and its list `candidates:`. docs/sweep.md describes it."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hefkit.chips import TARGETS
from hefkit.errors import UsageError
from hefkit.files import read_start
from hefkit.names import plain_yaml
from hefkit.text import close_to, counted, one_line
from hefkit.workshop.sweep.settings import Candidate, Settings

AUTO = "auto"
CANDIDATES, NAME = "candidates", "name"
MAX_BYTES = 1 << 20
MAX_CANDIDATES = 64
MAX_LINES = 100
MAX_SAMPLES = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9][\w-]{0,63}", re.ASCII)
RESERVED = ("parsed-", "pictures")  # the names of the sweep's own folders begin with these


def read_plan(path: Path) -> list[Candidate]:
    """The candidates of a sweep file, in its order; equal ones once.

    Raises:
        UsageError: no such file, not YAML, an unknown key, a wrong value, or more than MAX_CANDIDATES.
        ToolchainError: PyYAML is missing.
    """
    return _Plan(path).candidates()


def check_plan(candidates: Sequence[Candidate], *, emulate: bool, labelled: bool) -> None:
    """Refuse (exit 2) candidates that cannot be compared.

    Args:
        labelled: they are measured on --data, not on pictures of their calibration sets.
    """
    if len({(c.settings.calib, c.settings.num_samples) for c in candidates}) > 1 and not labelled:
        raise UsageError(
            "--sweep: the candidates have several calibration sets or sizes, and agreement is measured on pictures of "
            "the set, so it does not compare them; expected --data with labelled pictures"
        )
    for candidate in candidates if emulate else ():
        settings = candidate.settings
        if settings.level is not None and settings.level > 1:
            raise UsageError(
                f"--sweep: {candidate.name} is of level {settings.level}, which trains; --emulate forecasts levels 0 "
                "and 1 only; leave it out, or compile with the SDK"
            )
        if settings.finetune is not None:
            raise UsageError(f"--sweep: {candidate.name} fine-tunes, which --emulate cannot forecast; leave it out")
        if settings.hw_arch is not None:
            raise UsageError(
                f"--sweep: {candidate.name} is for {settings.hw_arch}, but an emulation is the same for every chip; "
                "leave hw-arch out"
            )


class _Plan:
    def __init__(self, path: Path) -> None:
        self.path = path

    def candidates(self) -> list[Candidate]:
        top = self._read()
        listed = top.pop(CANDIDATES, [])
        axes = {self._field(key): self._alternatives(key, value) for key, value in top.items()}
        count = math.prod(map(len, axes.values())) if axes else 0
        if not isinstance(listed, list):
            self._refuse(f"{CANDIDATES} is not a list", "one mapping a candidate")
        if not 1 <= count + len(listed) <= MAX_CANDIDATES:
            self._refuse(f"it has {counted(count + len(listed), 'candidate')}", f"1 to {MAX_CANDIDATES}")
        combinations = itertools.product(*axes.values()) if axes else []
        found = [Settings(**dict(zip(axes, values, strict=True))) for values in combinations]
        plan = [Candidate(settings.name(), settings) for settings in dict.fromkeys(found)]
        plan += [self._listed(entry) for entry in listed]
        names = [candidate.name.casefold() for candidate in plan]
        twice = next((c.name for c in plan if names.count(c.name.casefold()) > 1), None)
        if twice is not None:
            self._refuse(f"two candidates are called {twice}", "a name for each")
        return plan

    def _read(self) -> dict[str, Any]:
        try:
            top = plain_yaml(read_start(self.path, MAX_BYTES))
        except OSError as exc:
            raise UsageError(
                f"cannot read the sweep file {self.path}: {exc.strerror}; expected a YAML file, or the word {AUTO}"
            ) from exc
        except ValueError as exc:
            self._refuse(f"it is not valid YAML ({one_line(exc, 200)})", "keys such as optimization-level: [0, 2]")
        if not isinstance(top, dict) or not top:
            self._refuse("it has no keys", "keys such as optimization-level: [0, 2]")
        return dict(top)

    def _listed(self, entry: Any) -> Candidate:
        if not isinstance(entry, dict):
            self._refuse("an entry of candidates is not a mapping", "keys such as name and optimization-level")
        values = dict(entry)
        name = values.pop(NAME, None)
        settings = Settings(**{self._field(key): self._value(key, value) for key, value in values.items()})
        if name is None:
            return Candidate(settings.name(), settings)
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name.startswith(RESERVED):
            self._refuse(f"{_shown(name)} cannot be the name of a candidate", "letters, digits, - and _")
        return Candidate(name, settings)

    def _alternatives(self, key: str, value: Any) -> list[Any]:
        values = value if isinstance(value, list) else [value]
        if not 1 <= len(values) <= MAX_CANDIDATES:
            self._refuse(f"{key} has {counted(len(values), 'value')}", f"a list of 1 to {MAX_CANDIDATES}")
        return list(dict.fromkeys(self._value(key, one) for one in values))

    def _field(self, key: Any) -> str:
        if not isinstance(key, str) or key not in KEYS:
            near = close_to(key, KEYS) if isinstance(key, str) else None
            mean = "" if near is None else f", did you mean {near}?"
            self._refuse(f"it has the key {_shown(key)}{mean}", f"{', '.join(KEYS)}, {CANDIDATES}")
        return KEYS[key][0]

    def _value(self, key: str, value: Any) -> Any:
        self._field(key)
        _, read, expected = KEYS[key]
        found = read(value)
        if found is None:
            self._refuse(f"{key} is {_shown(value)}", expected)
        return found

    def _refuse(self, wrong: str, expected: str) -> NoReturn:
        raise UsageError(f"--sweep {self.path}: {wrong}; expected {expected}; see docs/sweep.md")


def _whole(low: int, high: int) -> Callable[[Any], int | None]:
    def read(value: Any) -> int | None:
        good = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 9
        return int(value) if good and low <= int(value) <= high else None

    return read


def _precision(value: Any) -> tuple[str, ...] | None:
    if not isinstance(value, str) or len(value) > 10_000:
        return None
    words = tuple(part.strip() for part in value.split(",") if part.strip())
    return () if words == ("none",) else words or None


def _truth(value: Any) -> bool | None:
    return {"true": True, "yes": True, "false": False, "no": False}.get(value.lower()) if _is_text(value) else None


def _lines(value: Any) -> tuple[str, ...] | None:
    lines = value.splitlines() if _is_text(value) else value
    if not isinstance(lines, list) or len(lines) > MAX_LINES or not all(map(_is_text, lines)):
        return None
    return tuple(line for line in lines if line.strip())


def _text(value: Any) -> str | None:
    return value.strip() if _is_text(value) and value.strip() and "\n" not in value else None


def _path(value: Any) -> Path | None:
    text = _text(value)
    return None if text is None else Path(text)


def _chip(value: Any) -> str | None:
    return value if _is_text(value) and value in TARGETS else None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _shown(value: Any) -> str:
    """A value of the file in a message, bounded: lists may be very long."""
    return repr(one_line(value, 60)) if isinstance(value, str) else f"a {type(value).__name__}"


# key of the file -> (field of Settings, reader: None where it is wrong, what is expected)
KEYS: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "optimization-level": ("level", _whole(0, 4), "a level from 0 to 4"),
    "precision-16": ("precision_16", _precision, "none, outputs, auto, or names of layers with commas"),
    "logits": ("logits", _truth, "true or false"),
    "quantization-groups": ("groups", _whole(1, 4), "a number from 1 to 4"),
    "finetune": ("finetune", _text, "keywords such as learning_rate=0.0001, epochs=4"),
    "script-lines": ("script_lines", _lines, "lines of a model script"),
    "calib": ("calib", _path, "the path of a calibration set"),
    "num-samples": ("num_samples", _whole(1, MAX_SAMPLES), "a number of pictures"),
    "hw-arch": ("hw_arch", _chip, f"one of {', '.join(TARGETS)}"),
}
