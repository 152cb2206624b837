"""Class names that a user gives: `--names FILE` or `--names drone,bird`, and `--classes` by name or number.

A file is a text file with one name a line, or a `data.yaml` with `names:` as a list or as a dict.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hefkit.cli import need
from hefkit.errors import ToolchainError, UsageError
from hefkit.files import existing
from hefkit.spec import MAX_NAME_LENGTH, ModelSpec, class_names
from hefkit.text import log, one_line

MAX_FILE_BYTES = 16 << 20
MAX_LISTED = 100  # names in an error message
MAX_CLASSES = 65536  # as many as a spec may have
METADATA = "metadata.yaml"
YAML_SUFFIXES = (".yaml", ".yml")
FILE_SUFFIXES = (".txt", ".names", *YAML_SUFFIXES)


def parse_names(text: str) -> dict[int, str]:
    """The value of `--names` -> {class id: name}; an empty line or part leaves its class nameless.

    Raises:
        UsageError: no such file, not readable as names, or a name that is too long or not printable.
        ToolchainError: a YAML file without PyYAML.
    """
    path = Path(text)
    if text and existing(path):
        return _from_file(path)
    if "," not in text and (path.suffix.lower() in FILE_SUFFIXES or os.sep in text):
        raise UsageError(f"--names: the file {text} does not exist; expected a file or names with commas between them")
    return _checked(dict(enumerate(text.split(","))), "--names")


def model_names(given: Mapping[int, str] | None, spec: ModelSpec) -> dict[int, str]:
    """One name for every class of the model: those given, else its own.

    Raises:
        UsageError: names for classes that the model does not have; they belong to another model.
    """
    count = spec.head.num_classes
    if given is None:
        return class_names(spec.names, count)
    if max(given) >= count:
        raise UsageError(
            f"--names has a name for class {max(given)}, but the model has {count} classes; "
            "expected the names it was trained with"
        )
    if len(given) < count:
        log.warning("--names has names for %d of the model's %d classes; the others get numbers", len(given), count)
    return class_names(given, count)


def names_of_metadata(model: Path) -> dict[int, str] | None:
    """The names in the `metadata.yaml` that ultralytics leaves beside a model; None where there are none to be had."""
    path = model.with_name(METADATA)
    if not existing(path):
        return None
    try:
        return _from_file(path)
    except (UsageError, ToolchainError) as exc:
        log.warning("%s", str(exc).removeprefix("--names: "))
        return None


def find_classes(wanted: Sequence[str], names: Mapping[int, str]) -> tuple[int, ...]:
    """`--classes`: numbers or names -> ascending class ids; a name that several classes share means all of them.

    Args:
        wanted: each a class id or a class name; upper and lower case are told apart only where they must be.
        names: every class of the model.

    Raises:
        UsageError: the model knows no such class; the message lists those that it knows.
    """
    return tuple(sorted({class_id for word in wanted for class_id in _ids_of(word, names)}))


def _ids_of(word: str, names: Mapping[int, str]) -> list[int]:
    if word.isascii() and word.isdigit() and len(word) <= 9 and int(word) in names:
        return [int(word)]
    ids = [i for i, name in names.items() if name == word]
    ids = ids or [i for i, name in names.items() if name.casefold() == word.casefold()]
    if not ids:
        known = [f"{i} {one_line(name, 40)}" for i, name in sorted(names.items())]
        if len(known) > MAX_LISTED:
            known[MAX_LISTED:] = [f"... {max(names)}"]
        raise UsageError(f"--classes: the model has no class {one_line(word, 60)!r}; expected of: {', '.join(known)}")
    return ids


def _from_file(path: Path) -> dict[int, str]:
    text = _read(path)
    if path.suffix.lower() in YAML_SUFFIXES:
        return _checked(_yaml_names(text, path), f"--names: {path}")
    # the line number is the class id, so an empty line must keep its place; \f or U+2028 end no line
    return _checked(dict(enumerate(text.replace("\r\n", "\n").split("\n"))), f"--names: {path}")


def _read(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise UsageError(f"--names: cannot read {path}: {exc.strerror}; expected a text file or a data.yaml") from exc
    if len(raw) > MAX_FILE_BYTES:
        raise UsageError(f"--names: {path} is larger than {MAX_FILE_BYTES >> 20} MiB; this is no list of names")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise UsageError(f"--names: {path} is no UTF-8 text; expected one name a line or a data.yaml") from exc


def _yaml_names(text: str, path: Path) -> dict[Any, Any]:
    """The `names` of a data.yaml, keys and values as they stand there."""
    need("yaml")
    import yaml

    try:
        # BaseLoader makes nothing but texts, lists and dicts: a class called `no` stays "no", `1` stays "1"
        top = yaml.load(text, Loader=yaml.BaseLoader)  # (safer than safe_load)
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise UsageError(f"--names: {path} is no valid YAML; expected `names:` as a list or as 0: name lines") from exc
    names = top.get("names") if isinstance(top, dict) else None
    if isinstance(names, list):
        return dict(enumerate(names))
    if isinstance(names, dict):
        return names
    raise UsageError(f"--names: {path} has no names; expected `names:` as a list or as 0: name lines")


def _checked(given: dict[Any, Any], where: str) -> dict[int, str]:
    """Keys as class ids, names stripped; what is empty is left out."""
    names = {}
    for key, name in given.items():
        number = _class_id(key, where)
        if not isinstance(name, str):
            raise UsageError(f"{where}: the name of class {number} is no text; expected one name a class")
        name = name.strip()
        if len(name) > MAX_NAME_LENGTH:
            raise UsageError(
                f"{where}: the name of class {number} has {len(name)} characters; expected at most {MAX_NAME_LENGTH}"
            )
        if not name.isprintable():
            raise UsageError(f"{where}: the name of class {number}, {one_line(name)}, holds control characters")
        if name:
            names[number] = name
    if not names:
        raise UsageError(f"{where} holds no names; expected one name a class")
    return names


def _class_id(key: Any, where: str) -> int:
    text = str(key)
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < MAX_CLASSES):
        raise UsageError(f"{where}: {one_line(text, 40)} is no class id; expected 0 to {MAX_CLASSES - 1}")
    return int(text)
