"""Raw head tensors become the right boxes: against plain loops, HailoRT's own results, and hand-made cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hefkit.detect import readers
from hefkit.detect.decode import MAX_CANDIDATES, Decoder, DecodeSettings, check_outputs, decode_all
from hefkit.detect.detections import Detections
from hefkit.detect.readers import ScoreReader, scores_of
from hefkit.spec import HeadSpec, OutputSpec
from tests.helpers.heads import (
    Found,
    is_close_call,
    make_head,
    per_feature,
    plain_boxes,
    plain_decode,
    plain_scores,
    random_tensors,
)

GEOMETRIES = st.sampled_from(
    [
        ((32, 32), (8,)),
        ((64, 32), (8, 16)),
        ((32, 96), (8, 16, 32)),
        ((64, 64), (4, 8, 16, 32)),
        ((24, 40), (8,)),
    ]
)


def assert_same(ours: Detections, plain: list[Found]) -> None:
    """Same classes in the same order, scores to 1e-6, boxes to 0.001 px."""
    assert ours.class_id.tolist() == [f.class_id for f in plain]
    assert np.abs(ours.score - np.array([f.score for f in plain])).max(initial=0) < 1e-6
    assert np.abs(ours.xyxy - np.array([f.xyxy for f in plain]).reshape(-1, 4)).max(initial=0) < 1e-3


@settings(max_examples=150, deadline=None)
@given(
    geometry=GEOMETRIES,
    num_classes=st.integers(1, 5),
    reg_max=st.sampled_from([1, 4, 16]),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    activation=st.sampled_from(["none", "sigmoid"]),
    features=st.booleans(),
    nms_free=st.booleans(),
    conf=st.sampled_from([0.05, 0.25, 0.6]),
    iou=st.sampled_from([0.0, 0.3, 0.7]),
    max_det=st.sampled_from([1, 5, 300]),
    agnostic=st.booleans(),
    multi_label=st.booleans(),
    only=st.sampled_from([None, (0,), (0, 2)]),
    seed=st.integers(0, 2**32 - 1),
)
def test_decode_equals_plain_loops(
    geometry: tuple[tuple[int, int], tuple[int, ...]],
    num_classes: int,
    reg_max: int,
    dtype: str,
    activation: str,
    features: bool,
    nms_free: bool,
    conf: float,
    iou: float,
    max_det: int,
    agnostic: bool,
    multi_label: bool,
    only: tuple[int, ...] | None,
    seed: int,
) -> None:
    """Any head of any geometry gives what loops over every anchor, class and pair of boxes give."""
    rng = np.random.default_rng(seed)
    head = make_head(*geometry, num_classes, reg_max, dtype, activation, nms_free)
    if features and dtype != "float32":
        head = per_feature(head, rng)
    wanted = DecodeSettings(conf, iou, max_det, only, agnostic, multi_label)
    tensors = random_tensors(head, rng)
    assume(not is_close_call(tensors, head, wanted))

    assert_same(Decoder(head, wanted)(tensors), plain_decode(tensors, head, wanted))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("reg_max", [1, 16])
def test_decode_all_gives_every_anchor(dtype: str, reg_max: int) -> None:
    """`decode_all` returns boxes and scores of all anchors in order, nothing thresholded."""
    rng = np.random.default_rng(1)
    head = make_head(reg_max=reg_max, dtype=dtype, activation="none")
    tensors = random_tensors(head, rng)

    boxes, scores = decode_all(tensors, head)

    assert boxes.shape == (64 + 16 + 4, 4) and scores.shape == (84, 3)
    assert boxes.dtype == scores.dtype == np.float32
    assert np.abs(boxes - plain_boxes(tensors, head)).max() < 1e-3
    assert np.abs(scores - plain_scores(tensors, head)).max() < 1e-6


def test_a_box_worked_by_hand() -> None:
    """One cell, reg_max 4: bins 0 0 100 0 (side 2 cells) and 0 0 0 0 (side 1.5), stride 8, cell (x=1, y=2).

    The centre is (12, 20); left 2 * 8 = 16 px, top 1.5 * 8 = 12, right 16, bottom 12.
    """
    head = make_head((32, 32), (8,), num_classes=1, reg_max=4, dtype="float32")
    box, cls = np.zeros((4, 4, 16), np.float32), np.zeros((4, 4, 1), np.float32)
    box[2, 1] = [0, 0, 100, 0, 0, 0, 0, 0] * 2
    cls[2, 1] = 0.9

    found = Decoder(head, DecodeSettings())([box, cls])

    assert found.xyxy.tolist() == [[-4.0, 8.0, 28.0, 32.0]]
    assert found.score.tolist() == pytest.approx([0.9])


def one_row(scores: list[list[float]], box: float = 1.0) -> tuple[HeadSpec, list[np.ndarray]]:
    """Anchors side by side with these class scores, and boxes that do not touch each other (at most 8 px wide)."""
    cls = np.array([scores], np.float32)
    head = make_head((8, 8 * len(scores)), (8,), cls.shape[2], 1, "float32")
    return head, [np.full((1, len(scores), 4), box * 0.45, np.float32), cls]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param({}, [(1, 0.9), (0, 0.8)], id="best class an anchor"),
        pytest.param({"multi_label": True}, [(1, 0.9), (0, 0.8), (0, 0.7)], id="every class"),
        # as ultralytics: the best class is chosen among all, then the filter looks at it
        pytest.param({"classes": (0,)}, [(0, 0.8)], id="filter after the best class"),
        pytest.param({"classes": (0,), "multi_label": True}, [(0, 0.8), (0, 0.7)], id="filter with every class"),
        pytest.param({"classes": (1,)}, [(1, 0.9)], id="other class"),
        pytest.param({"max_det": 1}, [(1, 0.9)], id="max_det"),
        pytest.param({"conf": 0.9}, [(1, 0.9)], id="conf is inclusive"),
        pytest.param({"conf": 0.95}, [], id="conf above all"),
    ],
)
def test_which_scores_count(wanted: dict[str, object], expected: list[tuple[int, float]]) -> None:
    """Thresholds, best class, class filter and max_det act in the contract's order."""
    head, tensors = one_row([[0.7, 0.9], [0.1, 0.2], [0.8, 0.1]])

    found = Decoder(head, DecodeSettings(**wanted))(tensors)  # type: ignore[arg-type]

    got = list(zip(found.class_id.tolist(), found.score.tolist(), strict=True))
    assert got == [(c, pytest.approx(s)) for c, s in expected]


def test_equal_scores_are_ordered_by_class_then_anchor() -> None:
    """The order of equal scores is fixed, so two runs print the same lines."""
    head, tensors = one_row([[0.1, 0.5], [0.5, 0.1], [0.1, 0.5], [0.5, 0.1]])

    found = Decoder(head, DecodeSettings())(tensors)

    assert found.class_id.tolist() == [0, 0, 1, 1]
    assert found.xyxy[:, 0].tolist() == sorted(found.xyxy[:2, 0]) + sorted(found.xyxy[2:, 0])
    assert found.xyxy[0, 0] > found.xyxy[2, 0], "anchor 1 (class 0) before anchor 0 (class 1)"


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("activation", ["none", "sigmoid"])
def test_all_background_gives_nothing(dtype: str, activation: str) -> None:
    """Lowest class values everywhere: no detections, with the shapes of none."""
    head = make_head(dtype=dtype, activation=activation)
    tensors = [
        np.full(o.shape, -20 if dtype == "float32" and activation == "none" else 0, o.dtype) for o in head.outputs
    ]

    found = Decoder(head, DecodeSettings())(tensors)

    assert len(found) == 0 and found.xyxy.shape == (0, 4)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("activation", ["none", "sigmoid"])
def test_conf_zero_takes_every_anchor(dtype: str, activation: str) -> None:
    """A threshold of 0 excludes nothing; IoU 1 suppresses nothing."""
    head = make_head((32, 32), (8,), dtype=dtype, activation=activation)
    tensors = random_tensors(head, np.random.default_rng(0))
    everything = DecodeSettings(conf=0, iou=1, max_det=30_000, multi_label=True)

    assert len(Decoder(head, everything)(tensors)) == 16 * 3


@pytest.mark.parametrize(
    ("dtype", "activation", "top"),
    [
        ("uint8", "sigmoid", 255),
        ("uint16", "sigmoid", 65535),
        ("float32", "sigmoid", 1),
        # float32 has no number between sigmoid(18) and 1
        ("float32", "none", 18),
    ],
)
def test_conf_one_takes_certain_anchors_only(dtype: str, activation: str, top: float) -> None:
    """A threshold of 1 keeps scores of exactly 1 on the dequantised float32."""
    head = make_head((32, 32), (8,), 1, 1, dtype, activation)
    cls = np.zeros((4, 4, 1), dtype)
    cls[1, 2] = top

    found = Decoder(head, DecodeSettings(conf=1.0))([np.ones((4, 4, 4), dtype), cls])

    assert found.score.tolist() == [1.0]


@pytest.mark.parametrize("conf", [1e-9, 1e-4, 0.3, 0.9999, 0.99999, 0.9999999])
def test_logit_threshold_loses_nothing(conf: float) -> None:
    """The threshold moved before the sigmoid keeps exactly the scores that reach conf after it."""
    head = make_head((8, 8 * 4001), (8,), 1, 1, "float32", "none")
    centre = np.log(conf) - np.log1p(-conf)
    cls = np.linspace(centre - 1, centre + 1, 4001, dtype=np.float32).reshape(1, -1, 1)
    box = np.full((1, 4001, 4), 0.45, np.float32)

    found = Decoder(head, DecodeSettings(conf=conf, max_det=5000))([box, cls])

    _, scores = decode_all([box, cls], head)
    assert len(found) == (scores >= np.float32(conf)).sum() > 0


def test_quantised_threshold_is_exact_at_every_code() -> None:
    """For every code of a baked sigmoid the moved threshold agrees with the dequantised score."""
    head = make_head((8, 8 * 256), (8,), 1, 1, "uint8")
    head = replace(head, outputs=(head.outputs[0], replace(head.outputs[1], scale=0.00392156863)))
    cls = np.arange(256, dtype=np.uint8).reshape(1, 256, 1)
    box = np.full((1, 256, 4), 19, np.uint8)  # 19 * 6 / 255 = 0.447 cells
    scores = np.arange(256, dtype=np.float32) * np.float32(0.00392156863)

    for conf in [0.0, 0.1, 0.25, 0.5, float(scores[100]), float(np.nextafter(scores[100], np.float32(1))), 1.0]:
        found = Decoder(head, DecodeSettings(conf=conf))([box, cls])

        assert len(found) == (scores >= np.float32(conf)).sum()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_flood_is_capped(dtype: str) -> None:
    """Every anchor and class above the threshold: the best 30,000 enter NMS, and memory and time stay bounded."""
    head = make_head((320, 320), (8, 16, 32), 80, 1, dtype)  # 168,000 scores
    rng = np.random.default_rng(0)
    tensors = [rng.integers(1, 256, o.shape).astype(dtype) / (255 if dtype == "float32" else 1) for o in head.outputs]
    tensors = [t.astype(dtype) for t in tensors]
    boxless = [np.zeros_like(t) if i % 2 == 0 else t for i, t in enumerate(tensors)]  # nothing to suppress
    everything = DecodeSettings(conf=0.001, max_det=40_000, multi_label=True)

    found = Decoder(head, everything)(boxless)

    _, scores = decode_all(tensors, head)
    assert len(found) == MAX_CANDIDATES
    assert found.score[-1] == np.sort(scores.ravel())[-MAX_CANDIDATES]
    assert len(Decoder(head, replace(everything, max_det=300))(tensors)) == 300


def test_ties_at_the_cap_go_by_class_then_anchor() -> None:
    """More equal scores than places: the lower classes stay, and within a class the first anchors."""
    anchors = MAX_CANDIDATES - 1000
    head = make_head((8, 8 * anchors), (8,), 3, 1, nms_free=True)
    box, cls = np.zeros((1, anchors, 4), np.uint8), np.zeros((1, anchors, 3), np.uint8)
    cls[0, :, :2] = 200
    cls[0, -1, 2] = 201

    found = Decoder(head, DecodeSettings(max_det=40_000))([box, cls])

    assert found.class_id.tolist() == [2] + [0] * anchors + [1] * 999
    assert found.xyxy[-999:, 0].tolist() == (np.arange(999) * 8.0 + 4.0).tolist()


@settings(max_examples=100, deadline=None)
@given(
    dtypes=st.lists(st.sampled_from(["uint8", "uint16", "float32"]), min_size=3, max_size=3),
    alike=st.booleans(),
    features=st.booleans(),
    activation=st.sampled_from(["none", "sigmoid"]),
    size=st.sampled_from([(32, 32), (64, 32), (96, 160), (40, 72)]),
    strides=st.sampled_from([(8,), (8, 16, 32), (2, 4, 8), (1, 8)]),
    num_classes=st.integers(1, 9),
    conf=st.sampled_from([0.0, 0.25, 0.9, 1.0]),
    objects=st.sampled_from([0.0, 0.02, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_quick_scan_finds_what_a_comparison_finds(
    dtypes: list[str],
    alike: bool,
    features: bool,
    activation: str,
    size: tuple[int, int],
    strides: tuple[int, ...],
    num_classes: int,
    conf: float,
    objects: float,
    seed: int,
) -> None:
    """Scales with equal and with different codes, folded or not, nothing found or everything, NaN in float."""
    assume(all(side % stride == 0 for side in size for stride in strides))
    rng = np.random.default_rng(seed)
    specs = []
    for stride, dtype in zip(strides, [dtypes[0]] * 3 if alike else dtypes, strict=False):
        head = make_head(size, (stride,), num_classes, 1, dtype, activation)
        specs.append((per_feature(head, rng) if features and dtype != "float32" else head).outputs[1])
    tensors = [random_tensors(replace(head, outputs=(spec,)), rng, objects)[0] for spec in specs]
    for tensor in tensors:
        if tensor.dtype == np.float32:
            tensor[rng.random(tensor.shape) < 0.1] = np.nan
    scores = np.concatenate([scores_of(t, s).reshape(-1) for t, s in zip(tensors, specs, strict=True)])
    expected = np.flatnonzero(scores >= np.float32(conf))

    for worth in (1, 10**9):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(readers, "FOLD_MIN", worth)
            hit, score = ScoreReader(specs, conf).at_least(tensors)

        assert hit.tolist() == expected.tolist()
        assert score.tolist() == scores[expected].tolist()


@pytest.mark.parametrize("scale", [1e-4, 0.07, 0.5, 0.6, 3.0, 40.0])
def test_bins_of_any_scale(scale: float) -> None:
    """Where exp() of all codes fits no table the boxes are still right."""
    head = make_head((64, 64), (8, 16), 1, 16)
    head = replace(head, outputs=tuple(replace(o, scale=scale) if o.role == "box" else o for o in head.outputs))
    tensors = random_tensors(head, np.random.default_rng(3))

    boxes, _ = decode_all(tensors, head)

    assert np.abs(boxes - plain_boxes(tensors, head)).max() < 1e-3


def test_results_are_the_callers_own() -> None:
    """A result is not changed by the next call, nor by writing into another result."""
    head = make_head()
    first, second = (random_tensors(head, np.random.default_rng(seed)) for seed in (1, 2))
    decoder = Decoder(head, DecodeSettings())
    found = decoder(first)
    copy = Detections(found.xyxy.copy(), found.score.copy(), found.class_id.copy())

    decoder(second).xyxy[:] = -1
    again = decoder(first)
    again.score[:] = 0

    for one in (found, decoder(first)):
        assert len(copy) and (one.xyxy == copy.xyxy).all()
        assert (one.score == copy.score).all() and (one.class_id == copy.class_id).all()


@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf, 3e38], ids=str)
@pytest.mark.parametrize("reg_max", [1, 4])
def test_nan_and_infinity_affect_only_their_anchor(junk: float, reg_max: int) -> None:
    """NaN and infinities in a float model's tensors can remove only their own anchor, and raise no warning."""
    head = make_head((32, 32), (8,), 2, reg_max, "float32", "none")
    box, cls = np.full((4, 4, 4 * reg_max), 0.4, np.float32), np.full((4, 4, 2), -9, np.float32)
    cls[0, 0, 0] = cls[2, 2, 0] = 2
    cls[3, 3, 1] = np.nan
    box[0, 0, 0] = junk
    box[0, 0, -1] = -junk

    found = Decoder(head, DecodeSettings())([box, cls])

    expected = [20 - 0.4 * 8] if reg_max == 1 else [20 - 1.5 * 8]  # equal bins 0..3 have the mean 1.5
    assert found.xyxy[np.isclose(found.xyxy[:, 2], 40 - expected[0]), 0].tolist() == pytest.approx(expected)
    assert np.isfinite(found.xyxy).all() and len(found) <= 2


def test_an_empty_half_of_the_scales_is_no_problem() -> None:
    """Objects on the coarsest scale only: the fine scales have no candidates."""
    head = make_head(num_classes=2)
    tensors = [np.zeros(o.shape, np.uint8) for o in head.outputs]
    tensors[5][1, 0, 1] = 255

    found = Decoder(head, DecodeSettings())(tensors)

    assert found.class_id.tolist() == [1]


def test_nms_free_keeps_overlaps() -> None:
    """A head without NMS keeps boxes that overlap, best (anchor, class) pairs first."""
    head = make_head((8, 16), (8,), 2, 1, "float32", nms_free=True)
    box, cls = np.full((1, 2, 4), 5, np.float32), np.array([[[0.9, 0.8], [0.7, 0.1]]], np.float32)

    all_of_them = Decoder(head, DecodeSettings(iou=0.1))([box, cls])
    two = Decoder(head, DecodeSettings(iou=0.1, max_det=2))([box, cls])

    assert all_of_them.score.tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert two.score.tolist() == pytest.approx([0.9, 0.8])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda t: t[:-1], "expected 6 output tensors, got 5", id="one missing"),
        pytest.param(lambda t: [t[1], t[0], *t[2:]], "box stride 8", id="swapped"),
        pytest.param(lambda t: [t[0].astype(np.float32), *t[1:]], "float32", id="wrong dtype"),
    ],
)
def test_other_tensors_are_refused(change: object, message: str) -> None:
    """Tensors that do not fit the head are an error of the caller, raised at once."""
    head = make_head()
    tensors = random_tensors(head, np.random.default_rng(0))

    with pytest.raises(ValueError, match=message):
        check_outputs(change(tensors), head)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("folder", "least"), [("heads_80c_0obj", 0), ("heads_80c_30obj", 36), ("heads_80c_150obj", 249)]
)
def test_decode_agrees_with_hailort(shared: Path, folder: str, least: int) -> None:
    """Real tensors give what HailoRT's C++ post-processing gave: same classes and scores, boxes within 0.01 px.

    It orders equal scores otherwise, so a few of the ties keep the other one of two boxes.
    """
    head, tensors = bench_heads(shared / "bench" / folder)
    lines = (shared / "bench" / folder / "hailort_detections.txt").read_text().splitlines()[1:]
    expected = np.array([line.split() for line in lines], np.float64).reshape(-1, 6)
    corners = expected[:, [3, 2, 5, 4]] * 640

    found = Decoder(head, DecodeSettings(conf=0.25, iou=0.7, multi_label=True))(tensors)

    assert sorted_rows(found.class_id, found.score) == sorted_rows(expected[:, 0], expected[:, 1])
    matched = 0
    for class_id, score, xyxy in zip(found.class_id, found.score, found.xyxy, strict=True):
        same = (expected[:, 0] == class_id) & (np.abs(expected[:, 1] - score) < 1e-5)
        matched += bool((np.abs(corners[same] - xyxy).max(axis=1) < 0.01).any())
    assert matched >= least


def sorted_rows(class_id: np.ndarray, score: np.ndarray) -> list[tuple[int, float]]:
    """(class, score to four decimals), sorted."""
    return sorted((int(c), round(float(s), 4)) for c, s in zip(class_id, score, strict=True))


def bench_heads(folder: Path) -> tuple[HeadSpec, list[np.ndarray]]:
    """The head and tensors that meta.txt describes: name role stride height width features scale zero_point file."""
    outputs, tensors = [], []
    for line in (folder / "meta.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        name, role, stride, h, w, c, scale, zero, file = line.split()
        shape = (int(h), int(w), int(c))
        box = role == "reg"
        outputs.append(
            OutputSpec(
                "box" if box else "cls", int(stride), shape, name, None, "none" if box else "sigmoid", "uint8",
                float(scale), float(zero),
            )
        )  # fmt: skip
        tensors.append(np.load(folder / file).reshape(shape))
    return HeadSpec("dfl", 80, 16, (8, 16, 32), False, tuple(outputs)), tensors
