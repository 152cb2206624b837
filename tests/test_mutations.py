"""Damaged ONNX, JSON, YAML, script, name and label files: each is read or refused in one sentence, in bounded memory.

A worker process reads them. `make mutations` is the long run; it prints its figures.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import prepare_calibration
from hefkit.spec import HeadSpec, InputSpec, ModelSpec, OutputSpec
from tests.conftest import ROOT
from tests.helpers.mutations import MUTATIONS, delete, flip, insert, swap, truncate
from tests.helpers.pictures import noise, write
from tests.helpers.tiny_onnx import tiny_yolo

MOST_MB = 500
FEW, MANY = 150, {"onnx": 10_000, "yaml": 15_000}
MANY_OTHERS = 13_000  # of every other kind; together more than 100,000
KINDS = ["onnx", "spec", "manifest", "run_record", "yaml", "names", "script", "label"]

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="memory is measured by Linux's /proc"
)

TOKENS = [
    b"null", b"true", b"-1", b"0", b"NaN", b"1e999", b"-1e-999", b"9" * 400, b"9" * 5000, b"1.5", b"[]", b"{}", b'""',
    b'"\\ud800"', b'"\\u0000"', b'"' + b"x" * 5000 + b'"', b"[" * 3000, b'{"a":' * 3000, b"../..", b"/etc/passwd",
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", "é\u202e".encode(), b"\x1b[2J", b"\r", b"\n", b"\n\n  - ", b": ", b", ", b"# ",
    b"&a [*a, *a]", b"*a", b"!!bool x", b'!!int ""', b"!!timestamp x", b"!!binary x", b"<<: ", b"? ", b"| ", b"> ",
    b"---\n", b"%YAML 9.9\n", b"~", b"(", b")", b"=", b"@", b"\t",
]  # fmt: skip


def token(data: bytes, rng: random.Random) -> bytes:
    """Insert a piece that means something in one of the formats."""
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(TOKENS) + data[at:]


def replace_word(data: bytes, rng: random.Random) -> bytes:
    """Put such a piece in place of a word."""
    words = [w for w in data.replace(b",", b" ").replace(b":", b" ").split() if w]
    return data.replace(rng.choice(words), rng.choice(TOKENS), rng.choice((1, -1))) if words else data


def repeat_piece(data: bytes, rng: random.Random) -> bytes:
    """Repeat a piece up to thousands of times."""
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    piece = data[a : min(b, a + 200)]
    return data[:a] + piece * min(rng.choice((2, 10, 1000)), 1 + 100_000 // max(len(piece), 1)) + data[a:]


TEXT = [flip, insert, delete, truncate, swap, token, token, replace_word, replace_word, repeat_piece]


def good_file(kind: str, folder: Path) -> Path:
    """A file that can be read, with what belongs beside it."""
    if kind == "onnx":
        return _written(folder / "m.onnx", tiny_yolo().SerializeToString())
    if kind == "spec":
        outputs = tuple(
            OutputSpec(role, 8, (8, 8, channels), f"/n/{role}", f"net/{role}")
            for role, channels in (("box", 64), ("cls", 3))
        )
        spec = ModelSpec(
            "emulated", InputSpec((64, 64)), HeadSpec("dfl", 3, 16, (8,), False, outputs), dict(enumerate("abc"))
        )
        return _written(folder / "m.json", json.dumps(spec.to_json()).encode())
    if kind == "manifest":
        for number in range(3):
            write(folder / "photos" / f"{number}.png", noise(32, 32, seed=number))
        prepare_calibration.main([str(folder / "photos"), "--output", str(folder / "set"), "--imgsz", "32", "--quiet"])
        return folder / "set" / "manifest.json"
    if kind == "run_record":
        record = {
            "format": 1,
            "tool": "hefkit 0.1.0",
            "model": "m",
            "folders": ["crops"],
            "files": ["a.jpg", "s/b.jpg"],
        }
        return _written(folder / "run.json", json.dumps(record).encode())
    texts = {
        "yaml": "path: .\ntrain: images/train\nval: [images/val, list.txt]\nnc: 2\nnames:\n  0: drone\n  1: 'a bird'\n",
        "names": "drone\nbird\n# x\ncar\n",
        "script": (ROOT / "hailo_optimization.mscript").read_text(),
        "label": "0 0.5 0.5 0.2 0.3\n2 0.1 0.1 0.1 0.1\n",
    }
    for part in ("train", "val"):
        (folder / "images" / part).mkdir(parents=True, exist_ok=True)
        (folder / "images" / part / "a.jpg").touch()
    suffix = {"yaml": "data.yaml", "names": "n.txt", "script": "s.alls", "label": "l.txt"}[kind]
    return _written(folder / suffix, texts[kind].encode())


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def run(kind: str, count: int, folder: Path) -> str:
    """Read so many damaged files in one worker; returns the figures."""
    path = good_file(kind, folder)
    good, rng = path.read_bytes(), random.Random(f"{kind} {count}")
    ways: list[Callable[[bytes, random.Random], bytes]] = [*MUTATIONS.values()] if kind == "onnx" else TEXT
    later = [flip, insert, delete] if kind == "onnx" else TEXT  # the others need a message that can be read
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    command = [sys.executable, "-m", "tests.helpers.input_worker", kind]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin and process.stdout
        for number in range(count + 1):
            data = rng.choice(ways)(good, rng) if number else good
            for _ in range(rng.choice((0, 0, 0, 1, 3)) if number else 0):
                data = rng.choice(later)(data, rng) if data else data
            if kind == "manifest":
                path.unlink(missing_ok=True)
            path.write_bytes(data)
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            line = process.stdout.readline()
            assert line, f"{kind}: the reader ended or hung at file {number}: {path}"
            reply = json.loads(line)
            assert reply["outcome"] in ("read", "refused"), f"{kind} {number}: {reply['outcome']}; the file is {path}"
            assert number or reply["outcome"] == "read", "the good file"
            outcomes[reply["outcome"]] += 1
            slowest = max(slowest, reply["seconds"] if number else 0.0)
        process.stdin.close()
        grown = json.loads(process.stdout.readline())["grown_mb"]
    assert grown < MOST_MB and slowest < 10
    return (
        f"{kind}: {count} mutations: {outcomes['read'] - 1} read, {outcomes['refused']} refused; "
        f"slowest {slowest:.2f} s, memory grew by {grown:.1f} MB"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_mutations(tmp_path: Path, kind: str) -> None:
    """Some of every kind, the same every time."""
    run(kind, FEW, tmp_path)


@pytest.mark.mutations
@pytest.mark.parametrize("kind", KINDS)
def test_many_mutations(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """More than 100,000 together."""
    figures = run(kind, MANY.get(kind, MANY_OTHERS), tmp_path)
    with capsys.disabled():
        sys.stdout.write(f"\n{figures}\n")
