"""The command line is strict, its errors are one line, and its exit codes are the contract's."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hefkit import cli, errors
from hefkit.text import log
from tests.conftest import ROOT

SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))
EXAMPLES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("examples/*/*.py"))


def parser() -> cli.Parser:
    """A parser with one flag of every kind."""
    made = cli.Parser("a test", prog="tool")
    made.add_argument("--conf", type=cli.fraction, default=0.25)
    made.add_argument("--count", type=cli.whole_number(1, 9))
    made.add_argument("--seed", type=cli.whole_number(0))
    made.add_argument("--classes", nargs="+", action=cli.CommaList)
    made.add_argument("--imgsz", nargs="+", action=cli.ImageSize)
    return made


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param("--classes 0 2", ["0", "2"], id="spaces"),
        pytest.param("--classes 0,2", ["0", "2"], id="comma"),
        pytest.param("--classes 0, 2 --classes 5", ["0", "2", "5"], id="both, and twice"),
    ],
)
def test_lists_take_spaces_and_commas(words: str, expected: list[str]) -> None:
    """One list, however it is spelled."""
    assert parser().parse_args(words.split()).classes == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [("640", (640, 640)), ("480 640", (480, 640)), ("480,640", (480, 640)), ("8192", (8192, 8192))],
)
def test_image_size(words: str, expected: tuple[int, int]) -> None:
    """One side, or height and width."""
    assert parser().parse_args(["--imgsz", *words.split()]).imgsz == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param("--con 0.3", "unrecognized arguments: --con 0.3; did you mean --conf?", id="abbreviated flag"),
        pytest.param("--clases=0", "unrecognized arguments: --clases=0; did you mean --classes?", id="mistyped flag"),
        pytest.param("--colour", "unrecognized arguments: --colour; see tool", id="unknown flag"),
        pytest.param("--conf 1.01", "1.01 is out of range; expected a number from 0 to 1", id="above 1"),
        pytest.param("--conf -0.1", "expected a number from 0 to 1", id="negative"),
        pytest.param("--conf nan", "out of range", id="nan"),
        pytest.param("--conf x", "'x' is not a number", id="no number"),
        pytest.param("--count 0", "0 is out of range; expected a number from 1 to 9", id="below"),
        pytest.param("--count 10", "10 is out of range", id="above"),
        pytest.param("--count 1.5", "'1.5' is not a whole number", id="not whole"),
        pytest.param("--seed -1", "expected a number of at least 0", id="no upper end"),
        pytest.param("--classes ,", "expected at least one value", id="empty list"),
        pytest.param("--imgsz 1 2 3", "got 3", id="three sides"),
        pytest.param("--imgsz 0", "out of range", id="no side"),
        pytest.param("--imgsz 9000", "from 1 to 8192", id="huge side"),
        pytest.param("--bad\n\x1b[31m", r"unrecognized arguments: --bad \x1b[31m", id="control characters"),
    ],
)
def test_bad_flags_are_one_line_and_exit_2(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`error: sentence; see tool --help` and nothing else."""
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(words.split(" "))

    printed = capsys.readouterr().err
    assert caught.value.code == 2
    assert printed.startswith("error: ") and message in printed and printed.endswith("see tool --help\n")
    assert printed.count("\n") == 1 and printed[:-1].isprintable()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError, 2),
        (errors.DataError, 3),
        (errors.ModelError, 4),
        (errors.ToolchainError, 5),
        (errors.DeviceError, 6),
        (errors.GateError, 7),
    ],
)
def test_expected_failures_are_one_line(
    error: type[errors.HefkitError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each branch of the tree has its exit code; what a file name puts into a message cannot break the line."""

    def main(argv: object) -> int:
        raise error("what\nwas\x1b wrong")

    before = signal.getsignal(signal.SIGTERM)
    try:
        assert cli.run_main(main, []) == code
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err == "error: what was\\x1b wrong\n"


INTERRUPTED_IMPORT = """
import os, signal
try:
    os.kill(os.getpid(), signal.{signal})
    for _ in range(100_000):
        pass
except BaseException:  # as the initialisation of numpy takes it
    raise ImportError("yaml.core failed to import") from None
"""
INTERRUPTED = """
import sys, time
from hefkit import cli

def main(argv):
    cli.need("yaml")
    time.sleep(60)
    return 0

sys.exit(cli.run_main(main, []))
"""


@pytest.mark.parametrize(("number", "code", "word"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")])
def test_a_signal_waits_for_an_import(tmp_path: Path, number: str, code: int, word: str) -> None:
    """In the middle of an import it would look like a missing package; right after it the program ends."""
    (tmp_path / "yaml.py").write_text(INTERRUPTED_IMPORT.format(signal=number))
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])

    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=50,
        env={**os.environ, "PYTHONPATH": paths}, cwd=tmp_path,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (code, f"error: {word}\n")


def test_a_bug_keeps_its_traceback() -> None:
    """What we did not expect is not dressed up as a user's mistake."""

    def main(argv: object) -> int:
        raise ZeroDivisionError("ours")

    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(ZeroDivisionError):
            cli.run_main(main, [])
        with pytest.raises(ImportError):
            cli.run_main(lambda argv: __import__("hefkit.no_such_module") and 0, [])
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (
            "cv2",
            ["opencv-python-headless is missing", "pip install opencv-python-headless", "apt install python3-opencv"],
        ),
        ("onnx", ["onnx is missing", "pip install onnx"]),
        ("no_such_package_of_ours", ["no_such_package_of_ours is missing"]),
    ],
)
def test_a_missing_package_is_named(module: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the package's name and the command that installs it."""
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(errors.ToolchainError) as caught:
        cli.need(module)

    assert all(word in str(caught.value) for word in words)


def test_need_imports_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, in order, up to the first that is missing."""
    for name in ("first_of_need", "second_of_need", "third_of_need"):
        (tmp_path / f"{name}.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))

    cli.need("first_of_need", "second_of_need")
    with pytest.raises(errors.ToolchainError, match="missing_of_need is missing"):
        cli.need("missing_of_need", "third_of_need")

    assert [name in sys.modules for name in ("first_of_need", "second_of_need", "third_of_need")] == [True, True, False]


def test_logging_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Information is plain, warnings say what they are, quiet keeps the warnings."""
    log = logging.getLogger("hefkit")
    try:
        for quiet in (False, True):
            cli.set_up_logging(quiet)
            log.info("hello")
            log.warning("careful")
    finally:
        log.handlers.clear()

    assert capsys.readouterr().err == "hello\nwarning: careful\nwarning: careful\n"


def test_json_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    """One ASCII line; a value that is not JSON is our bug, not the reader's problem."""
    cli.print_json({"a": "é\n", "b": None})

    assert capsys.readouterr().out == '{"a": "\\u00e9\\n", "b": null}\n'
    with pytest.raises(ValueError):
        cli.print_json({"a": float("nan")})


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        pytest.param(signal.SIGINT, 130, "error: interrupted\n", id="Ctrl-C"),
        pytest.param(signal.SIGTERM, 143, "error: terminated\n", id="SIGTERM"),
    ],
)
def test_signals_run_the_cleanup(number: signal.Signals, code: int, words: str) -> None:
    """A signal ends the process with its code, after every `finally`."""
    program = (
        "import sys, time\nfrom hefkit import cli\n"
        "def main(argv):\n"
        "    try:\n        print('ready', flush=True)\n        time.sleep(60)\n"
        "    finally:\n        print('cleaned', flush=True)\n"
        "cli.run(main)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=30)

    assert (process.returncode, out, err) == (code, "cleaned\n", words)


def test_a_reader_that_leaves() -> None:
    """`tool --json | head -0` ends in one line, not in a traceback at interpreter exit."""
    program = (
        "import time\nfrom hefkit import cli\n"
        "def main(argv):\n    time.sleep(0.3)\n    cli.print_json({'a': 'x' * 100000})\n    return 0\n"
        "cli.run(main)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    printed = process.stderr.read().decode()
    process.stderr.close()

    assert process.wait(30) == 2 and printed == "error: the reader of standard output closed it\n"


@pytest.mark.parametrize("script", [*SCRIPTS, *EXAMPLES])
def test_help_imports_nothing_heavy(script: str) -> None:
    """`--help` works where numpy, cv2 and onnx are not installed, and `--version` too."""
    block = (
        "import sys, runpy\n"
        "for name in ('numpy', 'cv2', 'onnx', 'onnxruntime', 'tqdm', 'yaml'): sys.modules[name] = None\n"
        f"sys.argv = [{script!r}, sys.argv[1]]\nrunpy.run_path({script!r}, run_name='__main__')\n"
    )
    for flag, words in (("--help", "usage: "), ("--version", "hefkit ")):
        done = subprocess.run([sys.executable, "-c", block, flag], cwd=ROOT, capture_output=True, text=True, timeout=60)

        assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith(words)


def test_argparse_types_keep_their_sentence() -> None:
    """The types are usable on their own: they raise argparse's own error."""
    with pytest.raises(argparse.ArgumentTypeError, match="out of range"):
        cli.fraction("2")
    assert cli.whole_number(0)("7") == 7 and os.sep


LARGE = (
    "from hefkit import cli\ndef main(argv):\n    cli.print_json({'a': 'x' * 100000})\n    return 0\ncli.run(main)\n"
)


@pytest.mark.parametrize(
    ("shell", "code", "words"),
    [
        ('exec "$0" -c "$1" >/dev/full', 3, "error: cannot write standard output: No space left on device"),
        ('exec "$0" -c "$1" >&-', 2, "error: the reader of standard output closed it"),
        ('exec "$0" -c "$1" >/dev/full 2>&-', 3, ""),
        ('exec "$0" -c "$1" >/dev/full 2>/dev/full', 3, ""),
        ('exec "$0" -c "$1" <&- >/dev/null', 0, ""),
        ('exec "$0" -c "$1" <&- >&- 2>&-', 2, ""),
        ('mkdir gone; cd gone; rmdir ../gone; exec "$0" -c "$1"', 2, "error: the working directory does not exist"),
    ],
)
def test_where_standard_output_or_the_folder_is_missing(tmp_path: Path, shell: str, code: int, words: str) -> None:
    """One line, if it can be read, and the exit code; never a traceback, never a wrong 0."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", shell, sys.executable, LARGE], cwd=tmp_path, env=environment, capture_output=True, text=True
    )

    assert (done.returncode, done.stderr.count("\n")) == (code, bool(words)) and words in done.stderr


def test_the_file_size_limit(tmp_path: Path) -> None:
    """What FAT32 says of 4 GB, `ulimit -f` says of less."""
    program = (
        "from pathlib import Path\nfrom hefkit import cli, files\n"
        "def main(argv):\n"
        "    with files.explained(Path('big')):\n        Path('big').write_bytes(bytes(1 << 20))\n"
        "cli.run(main)\n"
    )
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 8; exec "$0" -c "$1"', sys.executable, program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 3 and done.stderr.startswith("error: big would be larger than")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_end(number: signal.Signals) -> None:
    """What is done is done: the code is that of the finished run."""
    program = (
        "import atexit, os, sys\nfrom hefkit import cli\n"
        "def main(argv):\n"
        f"    atexit.register(lambda: os.kill(os.getpid(), {int(number)}))\n    return 7\n"
        "cli.run(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (7, "")


def test_a_daemon_thread_does_not_abort_the_end() -> None:
    """Python ends daemon threads by pthread_exit, which aborts the process where C++ is on their stack."""
    program = (
        "import threading, time\nfrom hefkit import cli\n"
        "def main(argv):\n"
        "    for _ in range(20):\n"
        "        threading.Thread(target=lambda: [time.sleep(0) for _ in iter(int, 1)], daemon=True).start()\n"
        "    print('done')\n    return 0\n"
        "cli.run(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_terminal_escapes_stay_out_of_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A name from a file cannot clear the screen, forge a line or set the title; our own lines end as written."""
    cli.set_up_logging(quiet=False)
    evil = "a\x1b[2J\x07\rerror: x\n\u202eb\x9b0m\udcff"

    log.info("reading %s", evil)
    log.warning(f"reading {evil}")
    log.info("two\nlines of %s", "é")

    lines = capsys.readouterr().err
    assert lines == (
        "reading a\\x1b[2J\\x07\\rerror: x\\n\\u202eb\\x9b0m\\udcff\n"
        "warning: reading a\\x1b[2J\\x07\\rerror: x\\n\\u202eb\\x9b0m\\udcff\n"
        "two\nlines of é\n"
    )
