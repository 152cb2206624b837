"""--data and --gate-kept: accuracy on labels before anything is written; emulated, and with the double of the SDK."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hefkit.detect.decode import DecodeSettings
from hefkit.detect.detector import Detector
from hefkit.errors import DataError, ToolchainError
from hefkit.open_model import open_engine
from hefkit.workshop.compile.sdk_engine import SdkEngine
from hefkit.workshop.dfc.client import Dfc, EmulationError
from tests.helpers.heads import make_head, make_spec
from tests.helpers.proofs import prove_once
from tests.helpers.sdk import fork_the_worker, make_sdk
from tests.helpers.tiny_onnx import drawn, save, tiny_yolo

CONF = 0.25


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy network, a calibration set, and a dataset whose labels are the network's own boxes: its mAP50 is high."""
    made = tmp_path_factory.mktemp("labelled")
    save(tiny_yolo(), made / "toy.onnx")
    np.save(made / "set.npy", np.stack([drawn((64, 64), i) for i in range(8)]))
    (made / "images" / "val").mkdir(parents=True)
    (made / "labels" / "val").mkdir(parents=True)
    with open_engine(made / "toy.onnx") as engine:
        detector = Detector(engine, DecodeSettings(conf=CONF))
        for i in range(6):
            picture = np.ascontiguousarray(drawn((64, 64), i)[..., ::-1])
            cv2.imwrite(str(made / "images" / "val" / f"{i}.png"), picture)
            found = detector.detect(picture)[0]
            rows = [
                f"{c} {(x1 + x2) / 128:.6f} {(y1 + y2) / 128:.6f} {(x2 - x1) / 64:.6f} {(y2 - y1) / 64:.6f}"
                for c, (x1, y1, x2, y2) in zip(found.class_id.tolist(), found.xyxy.tolist(), strict=True)
            ]
            (made / "labels" / "val" / f"{i}.txt").write_text("\n".join(rows))
    (made / "data.yaml").write_text("val: images/val\n")
    return made


@pytest.fixture
def compiled(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_here):
    """`compiled(*flags)`: main() in this process, in the test's folder."""
    fork_the_worker(monkeypatch)
    prove_once(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HAILO_SDK_PYTHON", raising=False)

    words = [folder / "toy.onnx", "--calib", folder / "set.npy", "--output", "best", "--json"]
    return lambda *flags: run_here("compile_to_hef.py", *words, *flags, cwd=tmp_path)


@pytest.mark.parametrize("how", ["emulate", "sdk"])
def test_accuracy_is_in_the_result(compiled, folder: Path, tmp_path: Path, how: str) -> None:
    """The object of validate_hef.py, the verdict as the last words, and the command that measures more."""
    flags = ["--emulate"] if how == "emulate" else ["--sdk-python", make_sdk(tmp_path)]

    done = compiled("--data", folder / "data.yaml", "--gate-kept", 0.1, *flags)

    assert done.code == 0, done.err
    accuracy = done.json["accuracy"]
    [model] = accuracy["models"]
    assert model["images"] == 6 and accuracy["reference"]["map50"] > 0.3
    assert model["kept"]["map50"] == pytest.approx(model["map50"] / accuracy["reference"]["map50"])
    assert accuracy["verdict"]["text"] in done.err
    name = "best.emulated.onnx" if how == "emulate" else "best.hef"
    command = f"python3 validate_hef.py {name} --reference {folder / 'toy.onnx'} --data {folder / 'data.yaml'}"
    assert f"on your labels: {command} --report report" in done.err


@pytest.mark.parametrize("how", ["emulate", "sdk"])
def test_a_gate_stops_before_anything_is_written(compiled, folder: Path, tmp_path: Path, how: str) -> None:
    """Exit 7 and no model; a share above 1 cannot be asked, so the labels are made wrong instead."""
    data = tmp_path / "wrong"
    (data / "labels" / "val").mkdir(parents=True)
    (data / "images").symlink_to(folder / "images")
    for path in (folder / "labels" / "val").iterdir():
        (data / "labels" / "val" / path.name).write_text("0 0.02 0.02 0.02 0.02\n")
    (data / "data.yaml").write_text("val: images/val\n")
    flags = ["--emulate"] if how == "emulate" else ["--sdk-python", make_sdk(tmp_path)]

    done = compiled("--data", data / "data.yaml", "--gate-kept", 0.9, *flags)

    assert done.code == 7 and len(done.errors) == 1
    assert done.errors[0].startswith("error: --gate-kept 0.9: best.") and "nothing was written" in done.errors[0]
    assert not list(tmp_path.glob("best.*"))
    assert done.json["output"] is None and done.json["accuracy"]["models"][0]["kept"] is not None


@pytest.mark.parametrize("gate", [False, True])
def test_an_emulation_that_fails_on_the_labelled_pictures(
    compiled, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: bool
) -> None:
    """The network may be good: a warning and a HEF; with a gate exit 7 and none."""
    infer, calls = Dfc.infer, []

    def fail_late(self: Dfc, context: str, *rest: Any) -> Any:
        calls.append(context)
        if len(calls) == 3:  # after the full precision and the calibration pictures
            raise EmulationError("RuntimeError: out of memory")
        return infer(self, context, *rest)

    monkeypatch.setattr(Dfc, "infer", fail_late)
    flags = ["--gate-kept", 0.9] if gate else []
    done = compiled("--data", folder / "data.yaml", "--sdk-python", make_sdk(tmp_path), *flags)

    told = "could not be measured on --data: the SDK does not emulate its network: RuntimeError: out of memory"
    assert (done.code, told in done.err, (tmp_path / "best.hef").exists()) == (7 if gate else 0, True, not gate)
    assert "accuracy" not in done.json or done.json["accuracy"] is None


def test_too_few_emulated_pictures_are_told() -> None:
    """An engine of tensors takes as many as there are pictures; a picture that it does not know is an error."""
    spec = make_spec(make_head((32, 32), (8,), 2, 1), (32, 32), "emulated")
    pictures = np.zeros((2, 32, 32, 3), np.uint8)
    engine = SdkEngine(spec)

    with pytest.raises(ToolchainError, match="returned 1 of 2 pictures; expected all"):
        engine.add(pictures, [np.zeros((1, 4, 4, 4), np.float32)])
    with pytest.raises(DataError, match="could not be read when the SDK emulated it"):
        engine.infer(pictures)


def test_wrong_data_is_told_before_the_quantisation(compiled, folder: Path, tmp_path: Path) -> None:
    """Exit 3 for a dataset that is not there, 2 for a gate without one."""
    missing = compiled("--emulate", "--data", tmp_path / "none.yaml")

    assert missing.code == 3 and "[3/4]" not in missing.err
    assert compiled("--emulate", "--gate-kept", 0.9).code == 2


def test_without_labels_the_agreement_is_the_last_word(compiled, folder: Path) -> None:
    """The sentence of the verdict on the calibration pictures, and the command with a placeholder for the labels."""
    done = compiled("--emulate")

    assert done.code == 0 and done.json["accuracy"] is None
    assert "of the float model's" in done.err.splitlines()[-3] and "measured on the calibration" in done.err
    assert "--data data.yaml --report report" in done.err.splitlines()[-2]
