"""What the scripts share on the command line: strict flags, words on stderr, errors as exit codes.

Imports only the standard library, so that `--help` answers at once on any machine.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hefkit import __version__
from hefkit.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, HefkitError, ToolchainError
from hefkit.signals import after_imports
from hefkit.text import log, one_line

MAX_SIDE = 8192

# import name -> (what pip calls it, what apt calls it on Raspberry Pi OS)
PACKAGES = {
    "numpy": ("numpy", "python3-numpy"),
    "cv2": ("opencv-python-headless", "python3-opencv"),
    "tqdm": ("tqdm", "python3-tqdm"),
    "onnx": ("onnx", None),
    "onnxruntime": ("onnxruntime", None),
    "yaml": ("PyYAML", "python3-yaml"),
    "aiohttp": ("aiohttp", "python3-aiohttp"),
    "paho": ("paho-mqtt", "python3-paho-mqtt"),
}


class Terminated(BaseException):
    """SIGTERM arrived; raised so that every `finally` still runs."""


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, with one-line errors and the flags every script has."""

    def __init__(self, description: str | None, **kwargs: Any) -> None:
        super().__init__(
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **kwargs,
        )
        self.add_argument("--version", action="version", version=f"hefkit {__version__}")
        self.add_argument("--quiet", action="store_true", help="warnings and errors only")
        self.add_argument(
            "--json", action="store_true", help="print the result as one JSON object, last line of stdout"
        )

    def error(self, message: str) -> NoReturn:
        """One line and exit code 2; argparse's usage block would bury the sentence."""
        self.exit(2, f"error: {one_line(message, 2000)}; see {self.prog} --help\n")


class CommaList(argparse.Action):
    """`--flag a b`, `--flag a,b` and a repeated flag all give one list of stripped strings."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        words = [values] if isinstance(values, str) else list(values)
        items = [part.strip() for word in words for part in word.split(",") if part.strip()]
        if not items:
            parser.error(f"{option_string}: expected at least one value")
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or []), *items])


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """An argparse type: an integer in [low, high]."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < low or (high is not None and value > high):
            limit = f"from {low} to {high}" if high is not None else f"of at least {low}"
            raise argparse.ArgumentTypeError(f"{value} is out of range; expected a number {limit}")
        return value

    return parse


def fraction(text: str) -> float:
    """An argparse type: a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0.0 <= value <= 1.0:  # also refuses nan
        raise argparse.ArgumentTypeError(f"{text} is out of range; expected a number from 0 to 1")
    return value


def seconds(text: str) -> float:
    """An argparse type: a duration above 0, at most a year."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0.0 < value <= 366 * 86400:  # also refuses nan
        raise argparse.ArgumentTypeError(f"{text} is out of range; expected seconds above 0, at most a year")
    return value


class ImageSize(argparse.Action):
    """`--imgsz S`, `--imgsz H W` or `--imgsz H,W` -> (height, width)."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        words = [part for word in values for part in str(word).split(",") if part]
        try:
            sides = [whole_number(1, MAX_SIDE)(word) for word in words]
        except argparse.ArgumentTypeError as exc:
            parser.error(f"argument {option_string}: {exc}")
        if len(sides) not in (1, 2):
            parser.error(f"argument {option_string}: expected one side or height and width, got {len(sides)}")
        setattr(namespace, self.dest, (sides[0], sides[-1]))


def set_up_logging(quiet: bool) -> None:
    """Human words go to stderr; `--quiet` leaves warnings and errors."""

    class Plain(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            text = record.getMessage()
            return text if record.levelno == logging.INFO else f"{record.levelname.lower()}: {text}"

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Plain())
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(logging.WARNING if quiet else logging.INFO)


def need(*modules: str) -> None:
    """Import each package or end with exit code 5 and the command that installs it."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as exc:
            raise ToolchainError(_missing(module, exc)) from exc


def _missing(module: str, exc: ImportError) -> str:
    """The one-line message for a package that is not there, or is there and broken."""
    pip_name, apt_name = PACKAGES.get(module, (module, None))
    root = (exc.name or "").partition(".")[0]
    what = "is missing" if root in ("", module) and not exc.path else f"cannot be imported ({one_line(exc)})"
    on_pi = f" (on a Raspberry Pi: sudo apt install {apt_name})" if apt_name else ""
    venv = Path(sys.argv[0]).parent / ".venv"
    inside = os.path.realpath(sys.prefix) == os.path.realpath(venv)
    activate = f"source {venv / 'bin' / 'activate'}, or " if (venv / "bin").is_dir() and not inside else ""
    return (
        f"the Python package {pip_name} {what}; this step needs it; {activate}install it with: "
        f"{os.path.basename(sys.executable) or 'python3'} -m pip install {pip_name}{on_pi}"
    )


def print_json(result: dict[str, Any]) -> None:
    """The machine's copy of the result: one line on stdout."""
    sys.stdout.write(json.dumps(result, ensure_ascii=True, allow_nan=False) + "\n")
    sys.stdout.flush()


def run(main: Callable[[Sequence[str] | None], int]) -> NoReturn:
    """Run a script's main() and end the process with the contract's exit code."""
    sys.exit(run_main(main, None))


def run_main(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None) -> int:
    """main(argv) with expected failures told in one line; returns the exit code."""
    _listen()
    try:
        return main(argv)
    except HefkitError as exc:
        return _tell(one_line(exc, 2000), exc.exit_code)
    except ImportError as exc:
        module = (exc.name or "").partition(".")[0]
        if module not in PACKAGES:
            raise
        return _tell(_missing(module, exc), ToolchainError.exit_code)
    except KeyboardInterrupt:
        return _tell("interrupted", EXIT_INTERRUPTED)
    except Terminated:
        return _tell("terminated", EXIT_TERMINATED)
    except BrokenPipeError:
        # the reader of our stdout left (`| head`); give Python a stdout it can still flush at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _tell("the reader of standard output went away", 2)


def _listen() -> None:
    with contextlib.suppress(ValueError):  # not the main thread: a test calls us; the default handlers stay
        signal.signal(signal.SIGTERM, after_imports(_raise_terminated))
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where Ctrl-C is to be ignored (nohup)
            signal.signal(signal.SIGINT, after_imports(signal.default_int_handler))


def _tell(text: str, code: int) -> int:
    sys.stderr.write(f"error: {text}\n")
    return code


def _raise_terminated(signum: int, frame: object) -> NoReturn:
    raise Terminated
