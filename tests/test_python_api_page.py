"""The programs of docs/python-api.md run as written; and what `pip install .` installs."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

import hefkit
from tests.conftest import ROOT
from tests.helpers.toy_emulation import write_emulation

PAGE = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
SCRIPT, NODE, SUPERVISION = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
BOX = [12.0, 12.0, 44.0, 44.0]  # that the toy finds in every picture of 64x64, class 1, score 1


def test_the_script(tmp_path: Path) -> None:
    """Every frame gets its line and its picture."""
    film = cv2.VideoWriter(str(tmp_path / "film.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 64))
    for i in range(3):
        film.write(np.full((64, 64, 3), 80 * i, np.uint8))
    film.release()
    (tmp_path / "script.py").write_text(SCRIPT)

    done = subprocess.run(
        [sys.executable, "script.py", str(write_emulation(tmp_path)), "film.mp4"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{i}: drone 1.00 at 12,12 to 44,44" for i in range(3)]
    assert sorted(path.name for path in tmp_path.glob("*.jpg")) == [f"{i:06d}.jpg" for i in range(3)]
    assert len([line for line in SCRIPT.splitlines() if line.strip()]) <= 15


class Message(SimpleNamespace):
    """A ROS message: fields by keyword, and those that are read without being set."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, [] if name in ("detections", "results") else Message())
        return getattr(self, name)


class Node:
    """rclpy's Node, as far as the page uses it."""

    def __init__(self, name: str) -> None:
        self.name, self.published, self.errors = name, list[Any](), list[str]()
        Node.last = self

    last: Any = None

    def create_publisher(self, kind: type, topic: str, depth: int) -> Any:
        return SimpleNamespace(publish=lambda message: self.published.append((kind, topic, message)))

    def create_subscription(self, kind: type, topic: str, callback: Any, qos: object) -> None:
        self.callback = callback

    def get_logger(self) -> Any:
        return SimpleNamespace(error=lambda text, once: self.errors.append(text))


def test_the_ros_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture with padded rows arrives, its detection leaves with the same header; against a stand-in for ROS."""
    kinds = {
        name: type(name, (Message,), {}) for name in ("Detection2D", "Detection2DArray", "ObjectHypothesisWithPose")
    }
    rows = np.full((64, 200), 9, np.uint8)  # a step of 200 bytes, 192 of them pixels
    image = Message(encoding="bgr8", height=64, width=64, step=200, data=rows.tobytes(), header="header")

    def spin(node: Any) -> None:
        node.callback(image)
        node.callback(Message(encoding="mono8"))

    stand_ins = {
        "rclpy": {"init": lambda: None, "spin": spin},
        "rclpy.node": {"Node": Node},
        "rclpy.qos": {"qos_profile_sensor_data": 5},
        "sensor_msgs": {},
        "sensor_msgs.msg": {"Image": Message},
        "vision_msgs": {},
        "vision_msgs.msg": kinds,
    }
    for name, content in stand_ins.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys, "argv", ["node.py", str(write_emulation(tmp_path))])

    exec(compile(NODE, "node.py", "exec"), {})

    [(kind, topic, message)] = Node.last.published
    [detection] = message.detections
    box = detection.bbox
    assert (kind.__name__, topic, message.header, detection.header) == (
        "Detection2DArray",
        "detections",
        *["header"] * 2,
    )
    assert (box.center.position.x, box.center.position.y, box.size_x, box.size_y) == (28, 28, 32, 32)
    assert [(r.hypothesis.class_id, r.hypothesis.score) for r in detection.results] == [("drone", 1.0)]
    assert Node.last.errors == ["expected bgr8, got mono8"]


def test_supervision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arrays that supervision.Detections takes; it checks xyxy (n, 4), the others (n,), and data by length."""
    module = ModuleType("supervision")
    vars(module)["Detections"] = SimpleNamespace
    if importlib.util.find_spec("supervision") is None:
        monkeypatch.setitem(sys.modules, "supervision", module)
    scope: dict[str, Any] = {}
    exec(compile(SUPERVISION, "convert.py", "exec"), scope)
    with hefkit.load(write_emulation(tmp_path)) as model:
        found = model.detect(np.zeros((64, 64, 3), np.uint8))

    for some, count in ((found, 1), (found[:0], 0)):
        made = scope["to_supervision"](some)
        assert made.xyxy.tolist() == [BOX] * count and made.confidence.tolist() == [1.0] * count
        assert made.class_id.tolist() == [1] * count and made.data["class_name"].tolist() == ["drone"] * count


@pytest.mark.slow
def test_what_is_installed(tmp_path: Path) -> None:
    """All modules, the page, py.typed; no test, no script. Built from a copy, because a build leaves folders behind."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("no setuptools in this environment; pip would fetch it from the network")
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if files.returncode:
        pytest.skip("not a git checkout")
    source = tmp_path / "source"
    for name in files.stdout.splitlines():
        if name.startswith(("hefkit/", "tests/test_")) or "/" not in name:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", "build", "--build-lib", "../built"]
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=120)

    built = tmp_path / "built"
    code = {str(path.relative_to(ROOT)) for path in (ROOT / "hefkit").rglob("*.py")}
    assert {str(path.relative_to(built)) for path in built.rglob("*") if path.is_file()} == code | {
        "hefkit/measure/report/page.html",
        "hefkit/py.typed",
        "hefkit/web/page.html",
    }
