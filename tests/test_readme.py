"""What README.md and docs/ say is true: their commands run, and the README's map names every package.

The commands run in a folder like the reader's: a copy of the project with a twelfth of the sample's pictures, `photos/`
with pictures, `flight.mp4`, and `best.onnx`, for which a toy model of the same input size stands in. On the Pi
(docs/raspberry-pi.md) there are `drone.hef` and `drone.json`, and the double of HailoRT stands in for the chip.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest

import compile_to_hef
import prepare_calibration
from hefkit.spec_file import read_spec
from tests.conftest import ROOT, Finished
from tests.helpers.chip_hef import write_hef
from tests.helpers.pictures import write
from tests.helpers.tiny_onnx import FEW_OBJECTS, drawn, save, tiny_yolo

README = ROOT / "README.md"
ON_THE_PI = ROOT / "docs" / "raspberry-pi.md"
DOCUMENTS = [
    README,
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks" / "README.md",
    ROOT / "examples" / "drone" / "README.md",
]

# not run, and why
NOT_RUN = {
    "make demo": "its environment is made with the network; tests/examples/test_drone_sample.py runs what it runs",
    "source .venv/bin/activate": "the tests have an environment already",
    "yolo export model=best.pt format=onnx imgsz=640 opset=13": "ultralytics and torch: gigabytes; best.onnx is there",
    "python3 -m pip install '.[cpu]'": "needs the network; tests/test_python_api_page.py looks at what is installed",
    "make test": "it is what runs this test",
    **dict.fromkeys(
        (
            "sudo apt install python3-venv python3-dev python3-tk build-essential graphviz libgraphviz-dev",
            "python3 -m venv ~/hailo",
            "~/hailo/bin/pip install hailo_dataflow_compiler-3.33.1-py3-none-linux_x86_64.whl",
            "~/hailo/bin/pip install 'tensorflow[and-cuda]==2.18.0'",
            "python3 compile_to_hef.py best.onnx --check --sdk-python ~/hailo/bin/python",
        ),
        "Hailo's wheel needs a registration",
    ),
    "python3 examples/drone/make_dataset.py --output out/drones": "minutes; test_drone_dataset.py draws a few",
    "pip install torch torchvision ultralytics": "gigabytes that only the training needs",
    "python3 examples/drone/train.py --data out/drones/data.yaml --output out/first --epochs 36": "an hour or more",
    "python3 examples/drone/train.py --data out/more/data.yaml --output out/model --epochs 15 "
    "--weights out/first/train/weights/best.pt": "most of an hour",
    "python3 compile_to_hef.py best.onnx --emulate --sweep examples/sweep.yaml --output best": "half a minute of "
    "processor time; tests/scripts/test_sweep.py runs sweeps, and tests/workshop/sweep/test_plan.py reads this file",
    **dict.fromkeys(
        (
            "sudo apt update",
            "sudo apt full-upgrade -y",
            "sudo apt install -y dkms",
            "sudo apt install -y hailo-all",
            "sudo apt install -y python3-numpy python3-opencv python3-tqdm",
            "sudo reboot",
            "hailortcli fw-control identify",
            "cat /sys/bus/pci/devices/0001:01:00.0/current_link_speed",
            "python3 -m venv --system-site-packages .venv",
            "python3 working_hailo_detector.py drone.hef csi --web 8080",
            "sudo apt install -y python3-aiohttp python3-paho-mqtt python3-av python3-picamera2",
            "sudo apt install -y hailo-h10-all",
            "sudo cp hefkit.service /etc/systemd/system/",
            "sudo nano /etc/hefkit.env",
            "sudo install -m 600 /dev/null /etc/hefkit.env",
            "sudo systemctl enable --now hefkit",
            "journalctl -u hefkit -f",
        ),
        "needs a Raspberry Pi, its packages and its chip",
    ),
    **dict.fromkeys(
        (
            "make deploy PI=user@raspberrypi.local MODEL=drone.hef",
            "ssh user@raspberrypi.local mkdir -p hefkit",
            "tar --exclude=__pycache__ --exclude=hefkit/workshop -cf - hefkit"
            " | ssh user@raspberrypi.local tar -C hefkit -xf -",
            "scp hailo_inference.py working_hailo_detector.py validate_hef.py user@raspberrypi.local:hefkit/",
            "scp drone.hef drone.json user@raspberrypi.local:hefkit/",
        ),
        "needs a Raspberry Pi in the network",
    ),
}
# flags of other programs
FOREIGN_FLAGS = {
    "--system-site-packages": "python3 -m venv",
    "--list-formats-ext": "v4l2-ctl",
    "--now": "systemctl",
    "--exclude": "tar",
    "--memory": "bench_calibration.py",
}
# run, and known to end with something else than 0
EXIT_CODES = {
    "python3 compile_to_hef.py best.onnx --hw-arch hailo8l --output best": (5, "a HEF comes only from it"),
}
PHOTOS = 2
FRAMES = 4


def commands(document: Path) -> list[str]:
    """The lines of all ```bash blocks, in order."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip() and not line.startswith("#")]


def commands_to_run(document: Path) -> list[str]:
    """Those of a document that can run here; none where the README, which runs as well, has them all."""
    found = [command for command in commands(document) if command not in NOT_RUN]
    return [] if document != README and set(found) <= set(commands(README)) else found


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Path]:
    """The folder of somebody who follows the document; `python3` is the Python of the tests."""
    home = tmp_path / "hefkit"
    for folder in ("hefkit", "examples"):
        # with what Python has compiled, but not what it is writing
        shutil.copytree(ROOT / folder, home / folder, ignore=shutil.ignore_patterns("*.pyc.*"))
    for path in (*ROOT.glob("*.py"), *ROOT.glob("*.mscript")):
        shutil.copy(path, home)
    for k, picture in enumerate(sorted((home / "examples" / "drone" / "images").rglob("*.jpg"))):
        if k % 12:
            picture.unlink()
    for i in range(PHOTOS):
        write(home / "photos" / f"{i}.jpg", drawn((240, 320), i))
    film = cv2.VideoWriter(str(home / "flight.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (320, 240))
    for i in range(FRAMES):
        film.write(drawn((240, 320), i))
    film.release()
    save(tiny_yolo(size=(640, 640), logits=FEW_OBJECTS), home / "best.onnx")
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    yield home
    shutil.rmtree(home)


def bring_a_hef(home: Path) -> None:
    """What was made on the workstation and copied: drone.hef and drone.json."""
    calib, output = str(home / "calib"), str(home / "drone")
    prepare_calibration.main([str(home / "photos"), "--output", calib, "--quiet"])
    words = ["--emulate", "--calib", calib, "--output", output, "--run-dir", str(home / "run"), "--quiet"]
    compile_to_hef.main([str(home / "best.onnx"), *words])
    emulation = home / "drone.emulated.onnx"
    write_hef(home / "drone.hef", read_spec(home / "drone.emulated.json"), emulation.read_bytes(), beside=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "document", list(filter(commands_to_run, DOCUMENTS)), ids=lambda path: str(path.relative_to(ROOT))
)
def test_every_command_runs(
    document: Path, reader: Path, run_script: Callable[..., Finished], chip_env: Callable[..., dict[str, str]]
) -> None:
    """In the order of the document, each with the exit code that the text promises.

    Those of the README by bash and a new interpreter, as a reader runs them; our scripts in the other documents as all
    tests run them.
    """
    more: dict[str, str] = {"PATH": f"{reader.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    if document == ON_THE_PI:
        bring_a_hef(reader)
        more |= chip_env()
    for command in commands_to_run(document):
        words = shlex.split(command)
        if document != README and words[0] == "python3" and (ROOT / words[1]).parent == ROOT:
            done = run_script(words[1], *words[2:], cwd=reader, **more)
        else:
            done = by_bash(command, reader, more)
        code, said = EXIT_CODES.get(command, (0, ""))
        assert (done.code, said in done.err) == (code, True), f"{command}\n{done.out}{done.err}"


def by_bash(command: str, folder: Path, variables: dict[str, str]) -> Finished:
    """A command to its end, with these environment variables more."""
    line = ["bash", "-euo", "pipefail", "-c", command]
    environment = {**os.environ, **variables}
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=300, env=environment)
    return Finished(done.returncode, done.stdout, done.stderr)


def test_no_exception_is_stale() -> None:
    """What is excused from running, or from exit 0, is still in a document."""
    written = {command for document in DOCUMENTS for command in commands(document)}

    assert set(NOT_RUN) | set(EXIT_CODES) <= written
    assert len(written - set(NOT_RUN)) >= 8


def test_the_map_is_complete() -> None:
    """Every script is named and every package has its line in the README."""
    text = README.read_text(encoding="utf-8")
    section = text.split("\n## The map\n")[1].split("\n## ")[0]
    listed = re.findall(r"^- `(hefkit/[a-z/]+)/`: \S.*", section, re.MULTILINE)
    packages = {str(p.parent.relative_to(ROOT)) for p in (ROOT / "hefkit").rglob("__init__.py")} - {"hefkit"}

    assert len(listed) == len(set(listed))
    assert packages <= set(listed)
    assert all(f"`{path.name}`" in section for path in ROOT.glob("*.py"))


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "CHANGELOG.md"], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_files_exist(document: Path) -> None:
    """Relative links lead somewhere, and every file that docs/ names in brackets is a module of the workshop."""
    text = document.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (document.parent / link).exists(), link
    for names in re.findall(r"\[((?:[\w/]+\.py(?:, )?)+)\]", text):
        for name in names.split(", "):
            assert (ROOT / "hefkit" / "workshop" / name).exists(), name


def test_every_flag_in_the_documents_exists() -> None:
    """A flag that is written about is a flag of one of our scripts, or one of FOREIGN_FLAGS."""
    help_text = ""
    for script in (*sorted(ROOT.glob("*.py")), *sorted(ROOT.glob("examples/*/*.py"))):
        help_text += subprocess.run(
            [sys.executable, str(script), "--help"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    known = set(re.findall(r"--[a-z][a-z0-9-]+", help_text)) | set(FOREIGN_FLAGS)
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text)) <= known, document


def test_the_service_starts_what_exists() -> None:
    """The flags of examples/hefkit.service are flags of the script that it starts, and it keeps no secret."""
    unit = (ROOT / "examples" / "hefkit.service").read_text(encoding="ascii")
    [command] = re.findall(r"^ExecStart=/usr/bin/python3 (\S+) (.*)$", unit, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, str(ROOT / command[0]), *command[1].split(), "--names", "gone.txt"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    # every flag was understood: what is missed is only the file of names that is not there
    assert (done.returncode, "gone.txt does not exist" in done.stderr) == (2, True), done.stderr
    assert "Restart=on-failure" in unit and "TOKEN" not in unit and not re.search("PASSWORD=", unit)
    assert "RestartPreventExitStatus=2 4 5" in unit
