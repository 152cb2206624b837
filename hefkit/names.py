"""Class names: read from `--names` and `--classes`, and made safe for pictures and folders.

`--names` is a list with commas (`drone,bird`) or a file: one name a line, with its number or without; a `data.yaml`
with `names:` as a list or as a dict; or what other software writes:

    ["drone", "bird"]                     {"labels": ["unlabeled", "drone", "bird"]}
    {"0": "drone", "1": "bird"}           {"drone": 0, "bird": 1}
    {"categories": [{"id": 1, "name": "drone"}]}        item { id: 1 name: 'drone' }
"""

from __future__ import annotations

import ast
import json
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hefkit.cli import need
from hefkit.errors import ToolchainError, UsageError
from hefkit.files import existing, read_start
from hefkit.spec import MAX_NAME_LENGTH, ModelSpec, class_names
from hefkit.text import close_to, decoded, log, one_line

MAX_FILE_BYTES = 16 << 20
MAX_YAML_DEPTH = 100  # brackets
MAX_YAML_BYTES = 1 << 20  # PyYAML reads about 200 kB a second
MAX_LISTED = 100  # names in an error message
MAX_CLASSES = 65536  # as many as a spec may have
MAX_LABEL = 32  # characters of a name in a picture
MAX_FOLDER = 60  # characters of a name as a folder
METADATA = "metadata.yaml"
YAML_SUFFIXES = (".yaml", ".yml")
FILE_SUFFIXES = (".txt", ".names", ".json", ".pbtxt", *YAML_SUFFIXES)
# keys of JSON files that hold the names
KEYS = ("names", "labels", "classes", "class_names", "categories", "id2label", "label_map", "class_to_idx")
NOTHING = ("unlabeled", "unlabelled", "background", "__background__", "_background_", "???", "n/a")  # not a class
NUMBERED = re.compile(r"\s*([0-9]{1,5})\s*(?:[:;,=]\s*|\s)(\S.*)")  # `0  drone`, `0: drone`
LABEL_MAP = re.compile(r"item\s*\{(.*?)\}", re.DOTALL)  # of TensorFlow
# letters that Unicode does not split into an ASCII letter and an accent
_LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O", "œ": "oe", "ł": "l", "Ł": "L", "đ": "d"})


def parse_names(text: str) -> dict[int, str]:
    """The value of `--names` -> {class id: name}; a class whose line or part is empty gets no name.

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
    """One name for every class of the model: the given ones, else the model's own.

    Raises:
        UsageError: a name for a class that the model does not have.
    """
    count = spec.head.num_classes
    if given is None:
        return class_names(spec.names, count)
    fitted = _fitted(given, count)
    if fitted != given:
        log.warning("--names: class 0 is %s; the file counts from 1, or its first name is not a class", fitted[0])
    wrong = wrong_count(fitted, count, "--names")
    if max(fitted) >= count:
        raise UsageError(wrong)
    if wrong:
        log.warning("%s", wrong)
    return class_names(fitted, count)


def wrong_count(names: Mapping[int, str], count: int, where: str) -> str:
    """What is wrong with names for a model of `count` classes; empty if every class has one."""
    if names and max(names) >= count:
        return (
            f"{where} has a name for class {max(names)}, but the model has {count} classes; "
            "expected the names that the model was trained with"
        )
    if names and len(names) < count:
        return f"{where} has names for {len(names)} of the model's {count} classes; the others get numbers"
    return ""


def _fitted(given: Mapping[int, str], count: int) -> Mapping[int, str]:
    """Ids from 0, where `given` counts from 1 or begins with `unlabeled`: {1: "a", 2: "b"} -> {0: "a", 1: "b"}."""
    ids = sorted(given)
    if max(ids) < count:
        return given
    without = ids[1:] if given[ids[0]].casefold() in NOTHING else ids
    fits = len(without) == count and (without != ids or ids[0] == 1)
    return {i: given[key] for i, key in enumerate(without)} if fits else given


def names_of_metadata(model: Path) -> dict[int, str] | None:
    """The names in the `metadata.yaml` that ultralytics writes beside a model; None without a readable one."""
    path = model.with_name(METADATA)
    if not existing(path):
        return None
    try:
        return _from_file(path)
    except (UsageError, ToolchainError) as exc:
        log.warning("%s", str(exc).removeprefix("--names: "))
        return None


def find_classes(wanted: Sequence[str], names: Mapping[int, str]) -> tuple[int, ...]:
    """The values of `--classes` -> ascending class ids; a name that several classes share selects all of them.

    Args:
        wanted: class ids or class names. A name in the same case is preferred; else case is ignored.
        names: of every class of the model.

    Raises:
        UsageError: the model does not have a wanted class; the message lists its classes.
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
        near = close_to(word, names.values())
        mean = f"; did you mean {one_line(near, 60)!r}?" if near is not None else ""
        raise UsageError(
            f"--classes: the model has no class {one_line(word, 60)!r}{mean}; expected one of: {', '.join(known)}"
        )
    return ids


def readable(name: str, class_id: int) -> str:
    """A class name as printable ASCII, which is all that OpenCV 4 can draw.

    `Straße` -> `Strasse`; a name of which less than half remains -> `class3`; a long name is shortened with `..`.
    """
    plain = unicodedata.normalize("NFKD", name.translate(_LETTERS))
    letters = [c for c in plain if not unicodedata.combining(c)]
    ascii_only = "".join(c for c in letters if " " <= c <= "~").strip()
    if not ascii_only or 2 * len(ascii_only) < len(letters):
        return f"class{class_id}"
    return ascii_only if len(ascii_only) <= MAX_LABEL else ascii_only[: MAX_LABEL - 2] + ".."


def class_folders(names: Mapping[int, str]) -> dict[int, str]:
    """{class id: folder name}, safe and different for every class: a name from a model may contain anything."""
    folders: dict[int, str] = {}
    taken = set()
    for class_id, name in sorted(names.items()):
        safe = re.sub(r"[^\w-]+", "_", name)[:MAX_FOLDER].strip("_")
        if not safe or safe.casefold() in taken:
            safe = f"{safe or 'class'}-{class_id}"
        while safe.casefold() in taken:
            safe += "_"
        taken.add(safe.casefold())
        folders[class_id] = safe
    return folders


def _from_file(path: Path) -> dict[int, str]:
    text, where = _read(path), f"--names: {path}"
    if path.suffix.lower() in YAML_SUFFIXES:
        return _checked(_yaml_names(text, path), where)
    if text.strip()[:1] in ("{", "[") and text.strip()[-1] in ("}", "]"):
        return _checked(_json_names(text, where), where)
    if items := LABEL_MAP.findall(text):
        return _checked(dict(enumerate(_texts_of_items(items), 1)), where)
    # the line number is the class id, so empty lines count; \f and U+2028 do not end a line
    lines = text.replace("\r\n", "\n").split("\n")
    return _checked(_numbered(lines) or dict(enumerate(lines)), where)


def _numbered(lines: Sequence[str]) -> dict[Any, Any] | None:
    """{id: name} where every line begins with its number, from 0 or 1 upwards; else None."""
    found = [NUMBERED.fullmatch(line) for line in lines if line.strip()]
    ids = [int(match[1]) for match in found if match]
    if not ids or len(ids) < len(found) or ids[0] > 1 or ids != sorted(set(ids)):
        return None
    return {int(match[1]): match[2].strip().strip("\"'") for match in found if match}


def _texts_of_items(items: Sequence[str]) -> list[str]:
    """The names of a label map of TensorFlow, by ascending id from 1."""
    found: dict[int, str] = {}
    for item in items:
        values = dict(re.findall(r"(\w+)\s*:\s*[\"']?([^\"'\n,]+)", item))
        name, number = str(values.get("display_name", values.get("name", ""))), str(values.get("id", "")).strip()
        found[int(number[:9]) if number.isascii() and number.isdigit() else len(found)] = name
    return [found[key] for key in sorted(found)]


def _json_names(text: str, where: str) -> dict[Any, Any]:
    """The names of a JSON file, or of the text of a Python list or dict."""
    expected = 'expected a list of names, {"labels": [...]} or {"0": "name"}'
    try:
        try:
            value = json.loads(text)
        except ValueError:
            value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as exc:
        raise UsageError(f"{where} is neither valid JSON nor one name a line; {expected}") from exc
    if isinstance(value, dict):
        value = next((value[key] for key in KEYS if key in value), value)
    if isinstance(value, dict) and value and all(isinstance(number, int) for number in value.values()):
        value = {number: name for name, number in value.items()}
    if isinstance(value, list | tuple) and value and all(isinstance(item, dict) for item in value):
        ids = [item.get("id", i) for i, item in enumerate(value)]
        value = dict(zip(ids, (item.get("name", item.get("label")) for item in value), strict=True))
    if not isinstance(value, dict | list | tuple):
        raise UsageError(f"{where} has no names; {expected}")
    return value if isinstance(value, dict) else dict(enumerate(value))


def _read(path: Path) -> str:
    try:
        raw = read_start(path, MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise UsageError(f"--names: cannot read {path}: {exc.strerror}; expected a text file or a data.yaml") from exc
    if len(raw) > MAX_FILE_BYTES:
        raise UsageError(f"--names: {path} is larger than {MAX_FILE_BYTES >> 20} MiB; expected a list of names")
    return decoded(raw)


def _yaml_names(text: str, path: Path) -> dict[Any, Any]:
    """The `names` of a data.yaml, keys and values as written there."""
    try:
        top = plain_yaml(text)
    except ValueError as exc:
        raise UsageError(f"--names: {path} is not valid YAML; expected `names:` as a list or as 0: name lines") from exc
    names = top.get("names") if isinstance(top, dict) else None
    if isinstance(names, list):
        return dict(enumerate(names))
    if isinstance(names, dict):
        return names
    raise UsageError(f"--names: {path} has no names; expected `names:` as a list or as 0: name lines")


def plain_yaml(text: str | bytes) -> Any:
    """YAML without types: only texts, lists and dicts, so a class called `no` stays "no" and `1` stays "1".

    Lists may hold each other many times over (aliases): do not print or copy them. Raises ValueError where it is not
    YAML, too large or too deep, and ToolchainError without PyYAML.
    """
    need("yaml")
    import yaml

    if len(text) > MAX_YAML_BYTES:
        raise ValueError(f"it is larger than {MAX_YAML_BYTES >> 20} MiB")
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", text if isinstance(text, str) else text.decode("latin-1")):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_YAML_DEPTH:  # PyYAML's time grows with the square of the depth
            raise ValueError("it is nested too deeply")
    try:
        return yaml.load(text, Loader=yaml.BaseLoader)  # (safer than safe_load)
    except (yaml.YAMLError, RecursionError) as exc:
        raise ValueError(one_line(exc, 200)) from exc


def _checked(given: dict[Any, Any], where: str) -> dict[int, str]:
    """Keys as class ids, names without spaces around them; empty names are left out."""
    names = {}
    for key, name in given.items():
        number = _class_id(key, where)
        if not isinstance(name, str):
            raise UsageError(f"{where}: the name of class {number} is not text; expected one name a class")
        name = name.strip()
        if len(name) > MAX_NAME_LENGTH:
            raise UsageError(
                f"{where}: the name of class {number} has {len(name)} characters; expected at most {MAX_NAME_LENGTH}"
            )
        if not name.isprintable():
            raise UsageError(f"{where}: the name of class {number}, {one_line(name)}, contains control characters")
        if name:
            names[number] = name
    if not names:
        raise UsageError(f"{where} has no names; expected one name a class")
    return names


def _class_id(key: Any, where: str) -> int:
    text = str(key)
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < MAX_CLASSES):
        raise UsageError(f"{where}: {one_line(text, 40)} is not a class id; expected 0 to {MAX_CLASSES - 1}")
    return int(text)
