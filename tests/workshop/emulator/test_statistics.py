"""Streaming statistics against numpy on the tensors themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hefkit.workshop.emulator.statistics import Extremes, extremes
from hefkit.workshop.network import session
from hefkit.workshop.network.cut import cut
from hefkit.workshop.network.file import make_static
from tests.helpers.tiny_onnx import drawn, head_tensors, network_input, run_onnx, tiny_yolo

TENSORS = ["raw_box_8", "raw_cls_16", "raw_box_32"]


def network(opset: int) -> onnx.ModelProto:
    """The cut toy with (1, C, H, W) heads."""
    return cut(make_static(Path("toy.onnx"), tiny_yolo(opset=opset), "").model, head_tensors())


def feeds(count: int) -> Iterator[dict[str, np.ndarray]]:
    """Pictures as the network takes them."""
    return ({"images": network_input(drawn((64, 64), seed))} for seed in range(count))


def tensors(model: onnx.ModelProto, count: int) -> dict[str, np.ndarray]:
    """Every value of TENSORS over the pictures: (C, all)."""
    seen = [run_onnx(model, feed["images"], *TENSORS) for feed in feeds(count)]
    return {
        name: np.concatenate([s[i][0].reshape(s[i].shape[1], -1) for s in seen], axis=1)
        for i, name in enumerate(TENSORS)
    }


@pytest.mark.parametrize("opset", [11, 18])
def test_extremes_equal_numpy(opset: int) -> None:
    """Smallest and largest value of every channel over five pictures; opset 18 moved the axes to an input."""
    model = network(opset)
    expected = tensors(model, 5)

    found = extremes(model, TENSORS, feeds(5))

    assert list(found) == TENSORS
    for name, values in expected.items():
        assert found[name].low.dtype == found[name].high.dtype == np.float32
        np.testing.assert_allclose(found[name].low, values.min(axis=1), rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(found[name].high, values.max(axis=1), rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(found[name].largest, np.abs(values).max(axis=1), rtol=1e-6, atol=1e-5)


def test_every_picture_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several pictures at once give what one after the other gives; the extreme one may be first, last or between."""
    model = network(11)
    plain = list(feeds(7))
    strong = {"images": 3 * network_input(drawn((64, 64), 50))}
    together = {}
    for cores in (1, 5):
        monkeypatch.setattr(session, "available_cores", lambda cores=cores: cores)
        for place in (0, 3, 7):
            found = extremes(model, TENSORS, [*plain[:place], strong, *plain[place:]])
            together[cores, place] = [(e.low.tolist(), e.high.tolist()) for e in found.values()]

    assert all(values == together[1, 0] for values in together.values())
    assert together[1, 0] != [(e.low.tolist(), e.high.tolist()) for e in extremes(model, TENSORS, plain).values()]


def identity(shape: list[int]) -> onnx.ModelProto:
    """x -> y = x."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.mark.parametrize(
    ("shape", "low", "high"),
    [
        ([1, 6], [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]),  # a dense layer: every feature is a channel
        ([1, 2, 3], [0, 3], [2, 5]),
        ([6], [0], [5]),
    ],
)
def test_channels_lie_along_axis_1(shape: list[int], low: list[float], high: list[float]) -> None:
    """0..5 in different shapes."""
    found = extremes(identity(shape), ["y"], [{"x": np.arange(6, dtype=np.float32).reshape(shape)}])["y"]

    assert (found.low.tolist(), found.high.tolist()) == (low, high)


def test_by_channel() -> None:
    """For a layer of as many channels the same; for another number one range for all."""
    found = Extremes(np.float32([-1, 0]), np.float32([2, 5]))

    assert found.by_channel(2) is found
    assert found.by_channel(3).low.tolist() == [-1] * 3 and found.by_channel(3).high.tolist() == [5] * 3
    assert found.largest.tolist() == [2, 5]


def test_pictures_are_asked_for_as_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third next picture is made only when the first has been measured, on two cores."""
    monkeypatch.setattr(session, "available_cores", lambda: 2)
    model, asked = network(11), 0

    def stream() -> Iterator[dict[str, np.ndarray]]:
        nonlocal asked
        for feed in feeds(6):
            asked += 1
            yield feed

    results = session.in_parallel(lambda feed: feed["images"].shape, stream())
    seen = [(asked, next(results)) for _ in range(6)]

    assert [a for a, _ in seen] == [0, 3, 4, 5, 6, 6] and {s for _, s in seen} == {(1, 3, 64, 64)}
    assert extremes(model, TENSORS, feeds(1)).keys() == set(TENSORS)
