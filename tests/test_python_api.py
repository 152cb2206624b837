"""The Python API, as a program uses it: the names it may rely on, known boxes, every wrong argument."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hefkit
from hefkit import open_model
from hefkit.errors import HefkitError, ModelError, UsageError
from tests.conftest import ROOT
from tests.helpers.chip_hef import write_hef
from tests.helpers.fake_engine import engine_that_finds
from tests.helpers.heads import make_head, make_spec

LOAD = (
    "(model: 'str | os.PathLike[str]', *, conf: 'float' = 0.25, iou: 'float' = 0.7, max_det: 'int' = 300, "
    "classes: 'Sequence[int | str] | None' = None, agnostic_nms: 'bool' = False, multi_label: 'bool' = False, "
    "names: 'Mapping[int, str] | Sequence[str] | None' = None, batch_size: 'int' = 1) -> 'Model'"
)


def frame(value: int = 0, size_hw: tuple[int, int] = (128, 128)) -> np.ndarray:
    """A gray frame, twice as large as the input of the model."""
    return np.full((*size_hw, 3), value, np.uint8)


@pytest.fixture
def model_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A model that finds two objects in every picture: a drone of score 0.9 and a bird of score 0.6."""
    path = tmp_path / "best.onnx"
    path.touch()
    found = ((0, 0.9, (8.0, 8.0, 24.0, 24.0)), (2, 0.6, (40.0, 40.0, 56.0, 56.0)))

    def opened(model: Path, options: Any) -> Any:
        engine = engine_that_finds(*found, kind="emulated", batch_size=options.batch_size)
        engine.spec = replace(engine.spec, names={0: "drone", 1: "plane", 2: "bird"})
        options.check(engine.spec)
        return engine

    monkeypatch.setattr(open_model, "open_engine", opened)
    yield path


def test_public_names() -> None:
    """What programs may rely on; a change here breaks theirs."""
    assert sorted(hefkit.__all__) == ["Detections", "Model", "__version__", "annotate", "errors", "load"]
    assert str(inspect.signature(hefkit.load)) == LOAD
    assert {name for name in vars(hefkit.Model) if not name.startswith("_")} == {
        "close", "detect", "kind", "names", "spec", "stream",
    }  # fmt: skip
    assert list(inspect.signature(hefkit.annotate).parameters) == ["frame_bgr", "found", "line_width", "hide_labels"]
    assert set(hefkit.__all__) <= set(dir(hefkit))
    with pytest.raises(AttributeError, match="no attribute 'detector'"):
        hefkit.detector  # noqa: B018


def test_import_waits_for_nothing() -> None:
    """`import hefkit` and a look at its errors load neither numpy nor OpenCV."""
    code = (
        "import sys, hefkit; hefkit.errors.HefkitError; print(sorted({'numpy', 'cv2', 'argparse'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_detect(model_file: Path) -> None:
    """Boxes in pixels of the frame, best first, with names; the frame stays as it is."""
    picture = frame(7)
    with hefkit.load(str(model_file)) as model:
        found = model.detect(picture)

    assert found.names == ["drone", "bird"] and found.class_id.tolist() == [0, 2] and len(found) == 2
    np.testing.assert_allclose(found.xyxy, [[16, 16, 48, 48], [80, 80, 112, 112]], atol=1e-3)
    np.testing.assert_allclose(found.score, [0.9, 0.6], atol=1e-6)
    assert (found.xyxy.dtype, found.score.dtype, found.class_id.dtype) == (np.float32, np.float32, np.int64)
    assert found[found.score > 0.7].names == ["drone"]
    assert (picture == 7).all()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({"conf": 0.7}, ["drone"], id="conf"),
        pytest.param({"max_det": 1}, ["drone"], id="max_det"),
        pytest.param({"classes": ["Bird"]}, ["bird"], id="class by name"),
        pytest.param({"classes": [np.int64(2), 0]}, ["drone", "bird"], id="classes by id"),
        pytest.param({"classes": "bird"}, ["bird"], id="one class"),
    ],
)
def test_options(model_file: Path, options: dict[str, Any], expected: list[str]) -> None:
    """Each option of `load` does what the flag of its name does."""
    with hefkit.load(model_file, **options) as model:
        assert model.detect(frame()).names == expected


def test_stream_keeps_the_order(model_file: Path) -> None:
    """Every frame comes back once, the same array, with its detections; batches do not change that."""
    frames = [frame(i, (64 + i, 90)) for i in range(11)]
    with hefkit.load(model_file, batch_size=3) as model:
        results = list(model.stream(iter(frames)))
        again = model.detect(frames[0])  # the engine is free again

    assert [id(picture) for picture, _ in results] == [id(picture) for picture in frames]
    assert all(found.names == ["drone", "bird"] for _, found in results)
    np.testing.assert_array_equal(results[0][1].xyxy, again.xyxy)


def test_leaving_a_stream(model_file: Path) -> None:
    """A break ends the threads; meanwhile `detect` is refused; `close` ends a stream that is left open."""
    threads = threading.active_count()
    with hefkit.load(model_file) as model:
        for _, _ in model.stream(frame(i) for i in range(100)):
            with pytest.raises(UsageError, match=r"in use by stream\(\); expected the end of that loop"):
                model.detect(frame())
            break
        model.detect(frame())
        left_open = model.stream(frame(i) for i in range(100))
        next(left_open)
        model.close()
        model.close()
    assert list(left_open) == []
    with pytest.raises(UsageError, match="this model is closed"):
        model.detect(frame())
    assert threading.active_count() <= threads


def test_an_error_in_the_frames_arrives(model_file: Path) -> None:
    """What the caller's own iterable raises, and a frame that is none."""

    def broken() -> Iterator[np.ndarray]:
        yield frame()
        raise RuntimeError("camera gone")

    with hefkit.load(model_file) as model:
        with pytest.raises(RuntimeError, match="camera gone"):
            list(model.stream(broken()))
        with pytest.raises(ValueError, match="got NoneType"):
            list(model.stream([frame(), None]))  # type: ignore[list-item]


def test_threads_share_a_model(model_file: Path) -> None:
    """Calls from several threads take turns, as callbacks of a robot do."""
    found: list[int] = []
    with hefkit.load(model_file) as model:
        workers = [threading.Thread(target=lambda: found.append(len(model.detect(frame())))) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(30)
    assert found == [2] * 8


def test_annotate(model_file: Path) -> None:
    """A new picture with boxes; an emulation says so in the corner, with and without detections."""
    with hefkit.load(model_file) as model:
        picture = frame(90, (400, 400))
        drawn = hefkit.annotate(picture, model.detect(picture))
        stamped = hefkit.annotate(picture, model.detect(picture)[:0], hide_labels=True)

    assert (picture == 90).all() and drawn.shape == picture.shape
    assert (drawn[50, 50:150] != 90).any()  # the upper edge of a box
    assert (stamped[-5:, :20] != 90).any() and (stamped[:300] == 90).all()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        pytest.param(None, "got NoneType; cv2.imread and a camera return None", id="none"),
        pytest.param([[1, 2, 3]], "got list", id="list"),
        pytest.param(np.zeros((4, 4), np.uint8), r"got \(4, 4\) uint8; .*COLOR_GRAY2BGR", id="gray"),
        pytest.param(np.zeros((4, 4, 4), np.uint8), "COLOR_BGRA2BGR", id="alpha"),
        pytest.param(
            np.zeros((1, 4, 4, 3), np.uint8), r"one frame at a time, or all of them to stream\(\)", id="batch"
        ),
        pytest.param(np.zeros((4, 4, 3)), "float64; scale its values to 0..255", id="float"),
        pytest.param(
            np.zeros((3, 4, 4), np.uint8), r"got \(3, 4, 4\) uint8; move its colours last", id="channels first"
        ),
        pytest.param(np.zeros((0, 4, 3), np.uint8), r"got \(0, 4, 3\)", id="empty"),
    ],
)
def test_wrong_frames(model_file: Path, wrong: Any, words: str) -> None:
    """A sentence with what came and what to do, from `detect` and from `annotate`."""
    with hefkit.load(model_file) as model:
        found = model.detect(frame())
        for call in (model.detect, lambda wrong: hefkit.annotate(wrong, found)):
            with pytest.raises(
                ValueError, match=rf"expected a frame as a numpy array, \(h, w, 3\) uint8, in BGR; .*{words}"
            ):
                call(wrong)


def test_views_are_frames(model_file: Path) -> None:
    """A mirrored or cropped view is a frame: OpenCV alone refuses negative strides."""
    with hefkit.load(model_file) as model:
        assert len(model.detect(frame()[:, ::-1])) == len(model.detect(frame()[..., ::-1])) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param({"conf": 1.5}, "conf is 1.5; expected a number from 0 to 1", id="conf"),
        pytest.param({"conf": "0.4"}, "conf is '0.4'; expected a number", id="text"),
        pytest.param({"iou": float("nan")}, "iou is nan; expected a number", id="nan"),
        pytest.param({"max_det": 0}, "max_det is 0; expected a whole number of at least 1", id="max_det"),
        pytest.param({"batch_size": 2.0}, "batch_size is 2.0; expected a whole number from 1 to 63", id="batch"),
        pytest.param({"classes": []}, "classes is empty", id="no class"),
        pytest.param({"classes": ["dron"]}, "classes: the model has no class 'dron'; did you mean 'drone'", id="class"),
        pytest.param({"names": "a,b"}, "names is the text 'a,b'", id="names"),
        pytest.param({"names": {"0": "a"}}, "names does not hold texts", id="names by text"),
    ],
)
def test_wrong_options(model_file: Path, options: dict[str, Any], words: str) -> None:
    """A sentence in the words of the API, not of the command line."""
    with pytest.raises(UsageError) as caught:
        hefkit.load(model_file, **options)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("bets.onnx", "does not exist; did you mean .*best.onnx?", id="near"),
        pytest.param("best.pt", r"yolo export model=.*best.pt format=onnx imgsz=640 opset=13", id="checkpoint"),
        pytest.param("", "no .hef file", id="folder"),
    ],
)
def test_wrong_models(model_file: Path, name: str, words: str) -> None:
    """Exit code 4 in a script, ModelError here; both are HefkitErrors."""
    with pytest.raises(ModelError, match=words) as caught:
        hefkit.load(model_file.parent / name)
    assert isinstance(caught.value, HefkitError)


def test_a_hef_in_ultralytics_folder_on_the_chip(chip: Any, tmp_path: Path) -> None:
    """`best_hailo_model/` with one HEF; the JSON of another program beside it is ignored."""
    folder = tmp_path / "best_hailo_model"
    folder.mkdir()
    spec = make_spec(make_head((64, 96)), (64, 96))
    write_hef(folder / "best.hef", spec, None, None, beside=True)
    with hefkit.load(folder, conf=0.3) as model:
        assert model.kind == "hailort" and model.spec.input.size == (64, 96)
        assert [len(found.names) for _, found in model.stream([frame(), frame()])] == [
            len(model.detect(frame())),
            len(model.detect(frame())),
        ]
    write_hef(folder / "second.hef", spec, None, None, beside=True)
    with pytest.raises(ModelError, match=r"it has 2 \.hef files; expected a model file, or a folder"):
        hefkit.load(folder)
