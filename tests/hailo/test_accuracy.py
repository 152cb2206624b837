"""`validate_hef.py model.hef --data data.yaml` on the Pi: numpy, OpenCV, PyYAML and HailoRT's double, nothing else.

In the double every code is the first byte of the picture, so the scores of a picture are known, and with them the
figures: white pictures score 1 at every anchor, black ones nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Finished
from tests.helpers.chip_hef import write_hef
from tests.helpers.heads import make_head, make_spec
from tests.helpers.pictures import write

SCRIPT = "validate_hef.py"


@pytest.fixture
def hef(tmp_path: Path) -> Path:
    """A HEF of 64 x 64 with one class and one stride; its spec lies beside it."""
    spec = make_spec(make_head((64, 64), (32,), 1, 1), names={0: "thing"})
    write_hef(tmp_path / "toy.hef", spec, None, beside=True)
    return tmp_path / "toy.hef"


def labelled(folder: Path, hef: Path) -> Path:
    """Two white pictures and a black one. The four anchors of a white picture give these four boxes, all labelled."""
    spec = json.loads(hef.with_suffix(".json").read_bytes())
    box = spec["head"]["outputs"][0]
    reach = (255 - box["zero_point"]) * box["scale"] * 32
    lines = []
    for y in (16, 48):
        for x in (16, 48):
            sides = np.clip([x - reach, y - reach, x + reach, y + reach], 0, 64) / 64
            centre, size = (sides[:2] + sides[2:]) / 2, sides[2:] - sides[:2]
            lines.append("0 " + " ".join(f"{v:.6f}" for v in (*centre, *size)))
    for name, value in (("a", 255), ("b", 255), ("c", 0)):
        write(folder / "images" / "val" / f"{name}.png", np.full((64, 64, 3), value, np.uint8))
        (folder / "labels" / "val").mkdir(parents=True, exist_ok=True)
        (folder / "labels" / "val" / f"{name}.txt").write_text("\n".join(dict.fromkeys(lines)) + "\n")
    (folder / "data.yaml").write_text("val: images/val\nnames: [thing]\n")
    return folder / "data.yaml"


def test_accuracy_on_the_chip(
    run_script: Callable[..., Finished], chip_env: Callable[..., dict[str, str]], hef: Path, tmp_path: Path
) -> None:
    """Two of three pictures are found whole: 67 of 101 recalls have precision 1."""
    data = labelled(tmp_path / "set", hef)

    done = run_script(SCRIPT, hef, "--data", data, "--report", "report", "--json", **chip_env())

    assert done.code == 0, done.err
    [model] = done.json["models"]
    assert (model["engine"], model["images"], model["kept"]) == ("hailort", 3, None)
    assert done.json["reference"] is None and done.json["verdict"]["level"] == "unknown"
    labels, found = model["per_class"][0]["labels"], model["map50"]
    assert labels % 3 == 0 and found == pytest.approx(67 / 101)
    assert Path(done.json["report"]).name in ("report.html", "report.json")
    assert json.loads((tmp_path / "cwd" / "report" / "report.json").read_bytes())["models"] == done.json["models"]


def test_a_gate_on_the_chip(
    run_script: Callable[..., Finished], chip_env: Callable[..., dict[str, str]], hef: Path, tmp_path: Path
) -> None:
    """Exit 7 below the gate, and the JSON all the same; above it 0."""
    data = labelled(tmp_path / "set", hef)

    refused = run_script(SCRIPT, hef, "--data", data, "--gate-map50", 0.7, "--json", **chip_env())
    passed = run_script(SCRIPT, hef, "--data", data, "--gate-map50", 0.6, **chip_env())

    assert (refused.code, passed.code) == (7, 0), refused.err
    assert refused.json["models"][0]["map50"] == pytest.approx(67 / 101)
    assert refused.errors == [f"error: --gate-map50 0.7: {hef} has an mAP50 of 0.6634"]
    assert "toy.hef" in passed.out and "unknown: mAP50 is 0.663 on 3 pictures" in passed.err
