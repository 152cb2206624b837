"""The SDK's emulation against the float network: agreement, and the ruin that agreement alone does not explain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hefkit.detect.quant import sigmoid
from hefkit.errors import ToolchainError
from hefkit.measure.accuracy import compare_heads
from hefkit.workshop.compile.quality import (
    COLLAPSED,
    FloatHeads,
    check_full_precision,
    collapsed,
    compare_sdk,
    low_agreement,
    sorted_outputs,
)
from tests.helpers.heads import make_head
from tests.helpers.onnx_net import network_input, run_onnx
from tests.helpers.sdk_run import Bench
from tests.helpers.tiny_onnx import drawn, tiny_yolo

PICTURES = 4


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A toy YOLO with bins."""
    return Bench.make(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def exact(bench: Bench) -> list[np.ndarray]:
    """The heads of all pictures by plain onnxruntime: (N, H, W, C) logits, in contract order."""
    heads = [
        run_onnx(bench.file.model, network_input(drawn((64, 64), i)), *bench.layout.tensors) for i in range(PICTURES)
    ]
    return [np.stack([h[k][0].transpose(1, 2, 0) for h in heads]) for k in range(6)]


def heads(bench: Bench) -> FloatHeads:
    """The float network on the same pictures."""

    def pictures() -> Iterator[np.ndarray]:
        return (drawn((64, 64), i) for i in range(PICTURES))

    return FloatHeads(bench.file, bench.layout, pictures, in_sample=True)


def baked(tensors: list[np.ndarray]) -> list[np.ndarray]:
    """Class tensors as probabilities."""
    return [sigmoid(t) if k % 2 else t for k, t in enumerate(tensors)]


def test_codes_against_real_values_by_hand() -> None:
    """One object; class codes are probabilities, so the float logits pass the sigmoid; one box code is off by a step.

    Stride 8, distances of 2 cells around (28, 28): the box 12, 12, 44, 44. Its right side is one code further, 8 * 6 /
    255 = 0.19 pixels: width 32.19, IoU 32 / 32.19. Noise of the boxes: one step of 6 / 255 beside four distances of 2.
    """
    head = make_head((64, 64), (8,), 3, 1)
    exact = replace(
        head, outputs=tuple(replace(o, dtype="float32", activation="none", scale=1.0) for o in head.outputs)
    )
    box, cls = np.zeros((8, 8, 4), np.float32), np.full((8, 8, 3), -20, np.float32)
    box[3, 3], cls[3, 3, 1] = 2, 20
    codes = [np.rint(box * 255 / 6).astype(np.uint8), np.rint(sigmoid(cls) * 255).astype(np.uint8)]
    codes[0][3, 3, 2] += 1

    found = compare_heads([([box, cls], codes)] * 2, exact, head, in_sample=False)

    assert (found["images"], found["boxes_float"], found["recall"], found["precision"]) == (2, 2, 1.0, 1.0)
    assert found["median_width_ratio"] == pytest.approx(1 + 8 * 6 / 255 / 32, abs=1e-4)
    assert found["median_iou"] == pytest.approx(1 / (1 + 8 * 6 / 255 / 32), abs=1e-4)
    assert (found["in_sample"], [o["role"] for o in found["outputs"]]) == (False, ["box", "cls"])
    assert found["outputs"][0]["snr_db"] == pytest.approx(10 * np.log10(16 / (6 / 255) ** 2), abs=0.01)
    assert found["outputs"][1]["snr_db"] > 100


def test_the_same_network_agrees_with_itself(bench: Bench, exact: list[np.ndarray]) -> None:
    """Recall, precision and spread 1, no shift: with sigmoids baked in, with logits, with the one for the other."""
    for tensors, promised, activation in (
        (baked(exact), True, "sigmoid"),
        (exact, False, "none"),
        (exact, True, "none"),  # an emulation that leaves the script's sigmoid out
    ):
        found = compare_sdk(heads(bench), tensors, baked=promised)

        assert (found["recall"], found["precision"], found["box_spread_ratio"]) == (1.0, 1.0, 1.0)
        assert (found["images"], found["in_sample"], found["class_activation"]) == (PICTURES, True, activation)
        assert abs(found["median_score_shift"]) < 1e-4 and found["boxes_float"] > 20
        assert collapsed(found) is None and low_agreement(found) is None
        check_full_precision(found)


def test_boxes_of_one_size_are_caught(bench: Bench, exact: list[np.ndarray]) -> None:
    """The symptom of a destroyed DFL head: scores as they were, every box of the same size."""
    ruined = [np.zeros_like(t) if k % 2 == 0 else t for k, t in enumerate(baked(exact))]

    found = compare_sdk(heads(bench), ruined, baked=True)

    assert found["box_spread_ratio"] < COLLAPSED
    refused = collapsed(found)
    assert refused is not None and "boxes of almost one size" in refused and "--optimization-level" in refused


def test_rounding_is_no_collapse(bench: Bench, exact: list[np.ndarray]) -> None:
    """Even boxes in four bits keep their spread."""
    coarse = [np.round(t / 0.7) * 0.7 if k % 2 == 0 else t for k, t in enumerate(baked(exact))]

    found = compare_sdk(heads(bench), coarse, baked=True)

    assert collapsed(found) is None and found["recall"] < 1


def test_boxes_that_are_all_alike_prove_nothing(bench: Bench, tmp_path: Path) -> None:
    """A float network whose boxes have one size anyway: no ratio, no refusal."""
    model = tiny_yolo()
    for tensor in model.graph.initializer:
        if tensor.dims and tensor.dims[0] == 64:  # weights and biases of the box heads
            tensor.raw_data = bytes(len(tensor.raw_data))
    flat = Bench.make(tmp_path, model)
    tensors = [np.zeros((PICTURES, *c.shape), np.float32) for c in flat.layout.convs]

    found = compare_sdk(heads(flat), tensors, baked=False)

    assert found["box_spread_ratio"] is None and collapsed(found) is None


def test_another_network_is_refused_before_quantisation(bench: Bench, exact: list[np.ndarray]) -> None:
    """Swapped colours, a missing normalisation: in full precision already the boxes are others."""
    other = [
        run_onnx(bench.file.model, 1 - network_input(drawn((64, 64), i))[:, ::-1], *bench.layout.tensors)
        for i in range(PICTURES)
    ]
    tensors = baked([np.stack([h[k][0].transpose(1, 2, 0) for h in other]) for k in range(6)])

    with pytest.raises(ToolchainError, match="computes something else, before any quantisation: it finds 0"):
        check_full_precision(compare_sdk(heads(bench), tensors, baked=True))


def quality(**changes: Any) -> dict[str, Any]:
    """Figures without boxes."""
    outputs = [{"role": "box", "stride": 8, "snr_db": 3.0}, {"role": "cls", "stride": 8, "snr_db": None}]
    figures = {"images": 2, "boxes_float": 0, "recall": None, "box_spread_ratio": None, "outputs": outputs}
    return {**figures, **changes}


def test_without_boxes_the_noise_decides() -> None:
    """Where the float model finds nothing, its tensors still tell whether the network is the same."""
    with pytest.raises(ToolchainError, match="only 3 dB above"):
        check_full_precision(quality())
    check_full_precision(quality(outputs=[{"role": "box", "stride": 8, "snr_db": 40.0}]))
    check_full_precision(quality(outputs=[{"role": "box", "stride": 8, "snr_db": None}]))  # equal to the last bit
    assert "finds no box in the 2 pictures" in str(low_agreement(quality()))


def test_low_agreement_is_told_without_a_gate() -> None:
    """Half of the boxes lost is worth a warning; little lost is not."""
    assert "keeps only 0.31" in str(low_agreement(quality(boxes_float=50, recall=0.31)))
    assert low_agreement(quality(boxes_float=50, recall=0.9)) is None


def test_outputs_in_contract_order(bench: Bench, exact: list[np.ndarray]) -> None:
    """By the parsed graph's order; where the emulation has another one, by shape, as long as that is unambiguous."""
    spec = bench.layout.to_head_spec()
    order = [5, 4, 3, 2, 1, 0]

    assert all(a is b for a, b in zip(sorted_outputs(exact[::-1], order, spec), exact, strict=True))
    assert all(a is b for a, b in zip(sorted_outputs(exact, order, spec), exact, strict=True))
    with pytest.raises(ToolchainError, match="5 tensors, expected 6"):
        sorted_outputs(exact[:5], order, spec)
    with pytest.raises(ToolchainError, match="tensors of the shapes"):
        sorted_outputs([exact[0]] * 6, order, spec)
