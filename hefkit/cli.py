"""The command line of every script: strict flags, messages on stderr, errors as exit codes; standard library only."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import errno
import importlib
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hefkit import __version__
from hefkit.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, HefkitError, ToolchainError
from hefkit.signals import Terminated, handle_signals, ignore_signals
from hefkit.text import close_to, log, one_line, printable

MAX_SIDE = 8192  # pixels
MAX_SECONDS = 366 * 86400  # a year
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

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


class Parser(argparse.ArgumentParser):
    """argparse without abbreviated flags, with one-line errors and the flags that every script has."""

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
        """Print one line and exit with 2; argparse's own usage block would hide the message."""
        self.exit(2, f"error: {one_line(message, 2000)}{self._did_you_mean(message)}; see {self.prog} --help\n")

    def _did_you_mean(self, message: str) -> str:
        """The flag that an unknown one resembles, after argparse's message for it; else an empty text."""
        unknown = message.removeprefix("unrecognized arguments: ")
        flags = [word.partition("=")[0] for word in unknown.split() if word.startswith("--")]
        if unknown == message or not flags:
            return ""
        near = close_to(flags[0], [flag for flag in self._option_string_actions if flag.startswith("--")])
        return "" if near is None else f"; did you mean {near}?"


class CommaList(argparse.Action):
    """`--flag a b`, `--flag a,b` and `--flag a --flag b` all give ['a', 'b']."""

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
    value = _number(text, "a number")
    if not 0.0 <= value <= 1.0:  # also refuses nan
        raise argparse.ArgumentTypeError(f"{text} is out of range; expected a number from 0 to 1")
    return value


def seconds(text: str) -> float:
    """An argparse type: a duration above 0, at most a year."""
    value = _number(text, "a number of seconds")
    if not 0.0 < value <= MAX_SECONDS:  # also refuses nan
        raise argparse.ArgumentTypeError(f"{text} is out of range; expected seconds above 0, at most a year")
    return value


def _number(text: str, kind: str) -> float:
    with contextlib.suppress(ValueError):
        return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not {kind}")


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
        if len(words) not in (1, 2):
            parser.error(f"argument {option_string}: expected one side or height and width, got {len(words)}")
        try:
            sides = [whole_number(1, MAX_SIDE)(word) for word in words]
        except argparse.ArgumentTypeError as exc:
            parser.error(f"argument {option_string}: {exc}")
        setattr(namespace, self.dest, (sides[0], sides[-1]))


def set_up_logging(quiet: bool) -> None:
    """Send log messages to stderr; `quiet` leaves warnings and errors only."""

    class Plain(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            # names in files may hold terminal escapes; only our own messages have several lines
            text = printable(record.getMessage(), keep="\n" if "\n" in str(record.msg) and record.args else "")
            return text if record.levelno == logging.INFO else f"{record.levelname.lower()}: {text}"

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Plain())
    logging.raiseExceptions = False  # a terminal that has gone must not end the run
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(logging.WARNING if quiet else logging.INFO)


def need(*modules: str) -> None:
    """Import each package; where one fails, raise ToolchainError (exit 5) with the command that installs it."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as exc:
            raise ToolchainError(_missing(module, exc)) from exc


def _missing(module: str, exc: ImportError) -> str:
    """The one-line message for a package that is missing or cannot be imported."""
    pip_name, apt_name = PACKAGES.get(module, (module, None))
    root = (exc.name or "").partition(".")[0]
    what = "is missing" if root in ("", module) and not exc.path else f"cannot be imported ({one_line(exc)})"
    on_pi = f" (on a Raspberry Pi: sudo apt install {apt_name})" if apt_name else ""
    venv = Path(sys.argv[0]).parent / ".venv"
    outside = os.path.realpath(sys.prefix) != os.path.realpath(venv)
    activate = f"source {venv / 'bin' / 'activate'}, or " if outside and (venv / "bin").is_dir() else ""
    return (
        f"the Python package {pip_name} {what}; this step needs it; {activate}install it with: "
        f"{os.path.basename(sys.executable) or 'python3'} -m pip install {pip_name}{on_pi}"
    )


def print_json(result: dict[str, Any]) -> None:
    """Print the result of `--json`: one line of ASCII on stdout."""
    sys.stdout.write(json.dumps(result, ensure_ascii=True, allow_nan=False) + "\n")
    sys.stdout.flush()


def run(main: Callable[[Sequence[str] | None], int], terminated: int = EXIT_TERMINATED) -> NoReturn:
    """Run a script's main() and end the process with its exit code; `terminated` is the one after SIGTERM."""
    ending = [1]  # a bug, unless main() ends
    atexit.register(_leave, ending)  # registered first, so called last
    try:
        ending[0] = run_main(main, None, terminated, at_end=ignore_signals)
    except SystemExit as exc:  # argparse
        ending[0] = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
        raise
    sys.exit(ending[0])


def _leave(ending: list[int]) -> None:
    """End the process here: Python's own end aborts it while a daemon thread is inside a C++ library."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(ending[0])


def run_main(
    main: Callable[[Sequence[str] | None], int],
    argv: Sequence[str] | None,
    terminated: int = EXIT_TERMINATED,
    at_end: Callable[[], object] = lambda: None,
) -> int:
    """Run main(argv), print an expected failure in one line, and return the exit code.

    Args:
        terminated: the exit code after SIGTERM; 0: SIGTERM is a normal end.
        at_end: is called when main() has ended, while Ctrl-C and SIGTERM still become exit codes.
    """
    try:
        _open_standard_streams()
        handle_signals()
        try:
            return _exit_code(main, argv)
        finally:
            at_end()
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_INTERRUPTED)
    except Terminated:
        return _fail("terminated", terminated) if terminated else 0


def _exit_code(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None) -> int:
    try:
        os.getcwd()
    except OSError:
        return _fail("the working directory does not exist any more; change to another folder", 2)
    try:
        code = main(argv)
        sys.stdout.flush()
        return code
    except HefkitError as exc:
        return _fail(one_line(exc, 2000), exc.exit_code)
    except ImportError as exc:
        module = (exc.name or "").partition(".")[0]
        if module not in PACKAGES:
            raise
        return _fail(_missing(module, exc), ToolchainError.exit_code)
    except BrokenPipeError:
        _drop(sys.stdout)  # the reader of our stdout has closed it (`| head`)
        return _fail("the reader of standard output closed it", 2)
    except OSError as exc:
        if exc.errno not in NO_SPACE:
            raise
        _drop(sys.stdout)
        where = one_line(exc.filename or "standard output", 400)
        return _fail(f"cannot write {where}: {exc.strerror}; free some space, or choose another output", 3)


def _drop(stream: Any) -> None:
    """Discard what a stream still holds: Python would write it at its end, and fail again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _open_standard_streams() -> None:
    """Replace stdin, stdout and stderr where the caller closed them: else the next opened file gets their number.

    A closed stdout becomes a pipe without a reader, so a result that cannot be printed is an error.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, this one
            if number == 1:
                reader, writer = os.pipe()
                os.close(reader)
                os.dup2(writer, 1)
                os.close(writer)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


def _fail(text: str, code: int) -> int:
    try:
        sys.stderr.write(f"error: {text}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        _drop(sys.stderr)
    return code
