"""What README.md and docs/ say is true: their commands run, and their list of files is the list of files.

The commands run in a folder like the reader's: a copy of the project, `photos/` with pictures, `flight.mp4`, and
`best.onnx`, for which a toy model of the same input size stands in.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from tests.conftest import ROOT
from tests.helpers.pictures import write
from tests.helpers.tiny_onnx import drawn, save, tiny_yolo

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]

# not run, and why
NOT_RUN = {
    "make test": "it is what runs this test",
    "python3 -m venv .venv": "make test has just done it",
    ".venv/bin/python -m pip install -r requirements.txt": "make test has just done it; needs the network",
}
# run, and known to end with something else than 0
EXIT_CODES = {
    "python3 compile_to_hef.py best.onnx --output best": (5, "a HEF comes only from it"),
}
FOREIGN_FLAGS = {"--list-formats-ext"}  # of v4l2-ctl, which lists what a camera can do
PHOTOS = 4


def commands(document: Path) -> list[str]:
    """The lines of all ```bash blocks, in order."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip() and not line.startswith("#")]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Path]:
    """The folder of somebody who follows the document; `python3` is the Python of the tests."""
    home = tmp_path / "hefkit"
    shutil.copytree(ROOT / "hefkit", home / "hefkit", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("*.py"), *ROOT.glob("*.mscript")):
        shutil.copy(path, home)
    for i in range(PHOTOS):
        write(home / "photos" / f"{i}.jpg", drawn((240, 320), i))
    film = cv2.VideoWriter(str(home / "flight.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (320, 240))
    for i in range(PHOTOS):
        film.write(drawn((240, 320), i))
    film.release()
    save(tiny_yolo(size=(640, 640)), home / "best.onnx")
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    yield home
    shutil.rmtree(home)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_runs(document: Path, reader: Path) -> None:
    """In the order of the document, each with the exit code that the text promises."""
    path = f"{reader.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    for command in commands(document):
        if command in NOT_RUN:
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=reader,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PATH": path},
        )
        code, words = EXIT_CODES.get(command, (0, ""))
        assert (done.returncode, words in done.stderr) == (code, True), f"{command}\n{done.stdout}{done.stderr}"


def test_no_exception_is_stale() -> None:
    """What is excused from running, or from exit 0, is still in a document."""
    written = {command for document in DOCUMENTS for command in commands(document)}

    assert set(NOT_RUN) | set(EXIT_CODES) <= written
    assert len(written - set(NOT_RUN)) >= 8


@pytest.mark.parametrize(
    "heading, folder",
    [
        ("### Scripts", "."),
        ("### hefkit: rooms that also run on the Pi", "hefkit"),
        ("### hefkit/workshop: rooms of the workstation", "hefkit/workshop"),
    ],
)
def test_the_list_of_files_is_complete(heading: str, folder: str) -> None:
    """Every script and every room has its sentence in the README, and nothing else has one."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split(f"\n{heading}\n")[1].split("\n##")[0]
    listed = re.findall(r"^- `([a-z0-9_]+\.py)`: \S.*", section, re.MULTILINE)

    there = {path.name for path in (ROOT / folder).glob("*.py")} - {"__init__.py"}
    assert len(listed) == len(set(listed))
    assert set(listed) == there


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "CHANGELOG.md"], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_files_exist(document: Path) -> None:
    """Relative links lead somewhere, and every file that docs/ names in brackets is a room of the workshop."""
    text = document.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (document.parent / link).exists(), link
    for names in re.findall(r"\[((?:\w+\.py(?:, )?)+)\]", text):
        for name in names.split(", "):
            assert (ROOT / "hefkit" / "workshop" / name).exists(), name


def test_every_flag_in_the_documents_exists() -> None:
    """A flag that is written about is a flag of one of our scripts, or one of FOREIGN_FLAGS."""
    help_text = ""
    for script in sorted(ROOT.glob("*.py")):
        help_text += subprocess.run(
            [sys.executable, str(script), "--help"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    known = set(re.findall(r"--[a-z][a-z0-9-]+", help_text)) | FOREIGN_FLAGS
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text)) <= known, document
