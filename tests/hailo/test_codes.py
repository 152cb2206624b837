"""Every status of HailoRT that a user can meet: which of our errors it becomes, and what it says to do."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

import pytest

from hefkit.errors import DeviceError, ModelError
from hefkit.hailo.codes import ADVICE, ADVICE_5, STATUS_OF_CLASS, failure, import_failure, is_abort, status_of
from tests.conftest import DOUBLES

# status -> a word of the cure that must be there (reference: HailoRT 4.23, hailort.h and where each is returned)
CURES = {
    4: "flat cable", 13: "next reboot", 16: "one version", 18: "off and on", 26: "compile it again", 36: "dmesg",
    62: "hailort.service", 64: "apt install", 73: "lsof /dev/hailo0", 74: "hailortcli scan", 75: "for this chip",
    76: "one version", 77: "hailort.service", 78: "one version", 79: "hailo-h10-all", 81: "cma=", 82: "bug of hefkit",
    85: "one version", 86: "one version", 87: "off and on", 88: "reboot", 91: "download it again", 92: "update",
    93: "--hw-arch", 6: "bug of hefkit", 63: "log names that",
}  # fmt: skip


class Wrapped(Exception):
    """Stands for pyhailort's base class, which has no place in this test's process."""


def plain(status: int) -> Exception:
    """As pyhailort words what it has no class for."""
    return Wrapped(f"libhailort failed with error: {status} (HAILO_SOMETHING)")


@pytest.mark.parametrize(("status", "word"), CURES.items())
def test_cause_and_cure(status: int, word: str) -> None:
    """One line: what failed, why, its number and name, what to do."""
    error = failure(plain(status), "open the chip")

    assert isinstance(error, ModelError if status in (26, 91, 92) else DeviceError)
    assert error.exit_code == (4 if status in (26, 91, 92) else 6)
    what, _, cure = str(error).partition(f"(status {status}, HAILO_{ADVICE[status].name}); ")
    assert what.startswith("HailoRT failed to open the chip: ") and word in cure
    assert "\n" not in str(error)


def test_names_are_those_of_hailort(chip: Any) -> None:
    """The table against the double's list, which is written down apart from it."""
    names = importlib.import_module("hailo_platform.pyhailort._pyhailort").STATUS

    assert {status: advice.name for status, advice in ADVICE.items()} == {s: names[s] for s in ADVICE}


def test_statuses_of_hailort_5() -> None:
    """Names of its hailort.h; an aborted operation only follows from another failure."""
    names = {94: "INVALID_HEF_USE", 95: "OPERATION_ABORTED", 96: "DEVICE_NOT_CONNECTED"}
    names[97] = "DEVICE_TEMPORARILY_UNAVAILABLE"

    assert {status: advice.name for status, advice in ADVICE_5.items()} == names
    for status, name in names.items():
        error = failure(plain(status), "run")
        assert f"(status {status}, HAILO_{name}); " in str(error)
        assert isinstance(error, ModelError if status == 94 else DeviceError)
        assert is_abort(plain(status)) == (status == 95)


def test_unknown_numbers_and_none() -> None:
    """The message then quotes HailoRT."""
    assert "error: 47 (HAILO_SOMETHING) (status 47); see its log" in str(failure(plain(47), "x"))
    assert str(failure(Wrapped("odd\nwords"), "x")) == "HailoRT failed to x: odd words; see its log"
    assert str(failure(Wrapped(), "x")) == "HailoRT failed to x: Wrapped; see its log"


@pytest.mark.parametrize(
    ("exc", "status"),
    [
        pytest.param(Wrapped("73"), 73, id="the extension's bare number"),
        pytest.param(Wrapped("libhailort failed with error: 74 (X)"), 74, id="in a sentence"),
        pytest.param(Wrapped("version 4.23.0"), None, id="another number"),
        pytest.param(Wrapped(), None, id="nothing"),
    ],
)
def test_status_of(exc: Exception, status: int | None) -> None:
    """Wrapped and unwrapped exceptions."""
    assert status_of(exc) == status


def test_every_class_of_the_package_is_known(chip: Any) -> None:
    """Classes without a number in their text are known by their name."""
    inner = importlib.import_module("hailo_platform.pyhailort.pyhailort")
    for code, (kind, text) in inner.WRAPPED.items():
        assert status_of(kind(text)) == code
        assert is_abort(kind(text)) == (code == 63)
    assert {kind.__name__ for kind, _ in inner.WRAPPED.values()} <= set(STATUS_OF_CLASS)


IMPORTS = {
    "not installed": (
        ModuleNotFoundError("No module named 'hailo_platform'"),
        ["sudo apt install hailo-all", "--system-site-packages"],
    ),
    "parts differ": (
        ImportError("_pyhailort version (4.20.0) does not match pyhailort version (4.23.0)"),
        ["4.20.0", "full-upgrade"],
    ),
    "library differs": (
        ImportError("libhailort version (4.20.0) does not match pyhailort version (4.23.0)"), ["together"],
    ),
    "library missing": (
        ImportError("libhailort.so.4.20.0: cannot open shared object file: No such file or directory"),
        ["of another version", "pip uninstall hailort"],
    ),
    "a size of numpy's": (ValueError("numpy.dtype size changed, may indicate binary"), ["pip uninstall the numpy"]),
    "numpy 2": (AttributeError("_ARRAY_API not found"), ["pip uninstall the numpy"]),
    "numpy": (ImportError("numpy.core.multiarray failed to import"), ["pip uninstall the numpy"]),
    "Python": (
        ModuleNotFoundError("No module named 'hailo_platform.pyhailort._pyhailort'"), ["another version of Python"],
    ),
    "libgomp": (ImportError("libgomp.so.1: cannot allocate memory in static TLS block"), ["LD_PRELOAD"]),
    "unknown": (ImportError("something else"), ["something else", "hailo-all"]),
}  # fmt: skip


@pytest.mark.parametrize(("exc", "words"), IMPORTS.values(), ids=IMPORTS)
def test_failures_of_the_import(exc: Exception, words: list[str]) -> None:
    """Each with the command or setting that cures it."""
    error = import_failure(exc)

    assert error.exit_code == 6 and "\n" not in str(error)
    assert all(word in str(error) for word in words), str(error)


def test_a_package_for_another_python() -> None:
    """pyhailort's own exception for a missing extension is not an ImportError; only its name identifies it."""

    class MissingPyHRTLib(Exception):
        pass

    error = import_failure(MissingPyHRTLib("hailo_platform/pyhailort/ should include a _pyhailort library"))

    assert "another version of Python" in str(error)


def test_the_double_has_no_words_of_ours() -> None:
    """Advice is hefkit's: the double raises numbers and short texts."""
    texts = [
        node.value
        for path in sorted(Path(DOUBLES).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]

    assert not [text for text in texts if "sudo" in text or "apt install" in text]
