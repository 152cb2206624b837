"""Streaming statistics against numpy on the tensors themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hefkit.workshop.emulator.statistics import BINS, channel_stats, histograms
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
def test_channel_statistics_equal_numpy(opset: int) -> None:
    """Range, mean and variance of every channel over five pictures; opset 18 moved the axes to an input."""
    model = network(opset)
    expected = tensors(model, 5)

    stats = channel_stats(model, TENSORS, feeds(5))

    for name, values in expected.items():
        found = stats[name]
        np.testing.assert_allclose(found.low, values.min(axis=1), rtol=1e-6)
        np.testing.assert_allclose(found.high, values.max(axis=1), rtol=1e-6)
        np.testing.assert_allclose(found.mean, values.mean(axis=1), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.variance, values.var(axis=1), rtol=1e-3, atol=1e-4)
        assert found.range == pytest.approx((values.min(), values.max()), rel=1e-6)


@pytest.mark.parametrize("opset", [11, 18])
def test_histograms_equal_numpy(opset: int) -> None:
    """Each value counted with its channel's weight, over the range seen (toys are small: every value is taken)."""
    model = network(opset)
    stats = channel_stats(model, TENSORS, feeds(3))
    expected = tensors(model, 3)
    weights = {name: np.linspace(1, 2, len(values)) for name, values in expected.items()}

    found = histograms(model, stats, weights, feeds(3))

    for name, values in expected.items():
        weight = np.broadcast_to(weights[name][:, None], values.shape)
        counts = np.histogram(values, BINS, stats[name].range, weights=weight)[0]
        assert found[name].sum() == pytest.approx(weight.sum())
        # a value on the border of two bins may fall into either
        assert np.abs(np.cumsum(found[name]) - np.cumsum(counts)).max() <= 4


def test_large_tensors_are_sampled_in_every_column_and_row() -> None:
    """(1, 1, 512, 640) has five times more values than a histogram takes: the sample still sees all columns."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 512, 640])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 512, 640])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    columns = np.broadcast_to(np.arange(640, dtype=np.float32), (1, 1, 512, 640))
    feed = [{"x": np.ascontiguousarray(columns)}]
    stats = channel_stats(model, ["y"], feed)

    [found] = histograms(model, stats, {"y": np.ones(1)}, feed).values()

    assert 20_000 < found.sum() < 512 * 640 / 2
    # 640 values in 2,048 bins: each column hits one bin, all about equally often
    assert np.count_nonzero(found) == 640
    assert found[found > 0].min() > 0.5 * found.sum() / 640


def test_tensors_without_channels_count_as_one() -> None:
    """A (1, 6) tensor has one range, one mean."""
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["y"])],
        "flat",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    feed = [{"x": np.arange(6, dtype=np.float32).reshape(1, 3, 1, 2)}]

    stats = channel_stats(model, ["y"], feed)["y"]

    # 0..5: mean 2.5, variance 35 / 12
    assert (stats.low.tolist(), stats.high.tolist(), stats.mean.tolist()) == ([0.0], [5.0], [2.5])
    assert stats.variance.tolist() == pytest.approx([35 / 12])


def test_a_constant_tensor_has_an_empty_histogram() -> None:
    """Nothing to search in a range of no width; the statistics say so without a division by zero."""
    graph = helper.make_graph(
        [helper.make_node("Sub", ["x", "x"], ["y"])],
        "zero",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 4, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    feed = [{"x": np.ones((1, 2, 4, 4), np.float32)}]
    stats = channel_stats(model, ["y"], feed)

    assert (stats["y"].range, stats["y"].variance.tolist()) == ((0.0, 0.0), [0.0, 0.0])
    assert not histograms(model, stats, {"y": np.ones(2)}, feed)["y"].any()


def test_one_picture_at_a_time() -> None:
    """The next picture is asked for only when the one before has been measured."""
    model, asked = network(11), []

    def stream() -> Iterator[dict[str, np.ndarray]]:
        for feed in feeds(3):
            asked.append(dict(feed))
            yield feed
            feed.clear()  # a caller that kept it finds it empty

    stats = channel_stats(model, TENSORS, stream())

    assert len(asked) == 3
    expected = tensors(model, 3)["raw_box_8"]
    np.testing.assert_allclose(stats["raw_box_8"].low, expected.min(axis=1), rtol=1e-6)
