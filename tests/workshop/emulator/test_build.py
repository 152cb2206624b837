"""The emulated model: it rounds where the chip rounds, nowhere else, and computes what numpy computes."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from hefkit.detect.quant import dequantize, sigmoid
from hefkit.workshop.emulator import correction
from hefkit.workshop.emulator.build import Emulator, Precision, noisiest
from hefkit.workshop.emulator.correction import picture_budget
from hefkit.workshop.heads.discover import discover
from hefkit.workshop.network.cut import cut
from hefkit.workshop.network.file import make_static
from hefkit.workshop.network.session import available_cores, open_session, run_session
from tests.helpers.numpy_emulator import (
    WEIGHTED,
    NumpyEmulation,
    ReluEmulation,
    TransposedEmulation,
    constants,
    layers,
    roundings,
)
from tests.helpers.onnx_net import Net, backbone, heads
from tests.helpers.tiny_onnx import Decode, drawn, network_input, run_onnx, tiny_yolo

BLACK_TO_WHITE = ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
# see `backbone` and `heads`: 12 Convs with SiLU, one Add and four Concats above the heads; 2 + 3 Convs a stride
POINTS = 12 + 1 + 4 + 3 * 5


class TransposedNet(Net):
    """A toy that upsamples with a ConvTranspose."""

    def upsample(self, x: str) -> str:
        channels, name = self.channels[x], f"w{len(self.nodes)}"
        self.weights[name] = self.rng.normal(0, 0.3, (channels, channels, 2, 2)).astype(np.float32)
        y = self.op("ConvTranspose", x, name, kernel_shape=[2, 2], strides=[2, 2])  # no bias: it may get one
        return self.known(y, channels)


class ReluNet(Net):
    """A toy with ReLU in place of SiLU."""

    def silu(self, x: str) -> str:
        return self.known(self.op("Relu", x), self.channels[x])


def other_yolo(net: Net) -> onnx.ModelProto:
    """A `tiny_yolo` of other building blocks."""
    strides = (8, 16, 32)
    pairs = heads(net, backbone(net, strides, 8), 64, 3)
    decode = Decode(net, pairs, strides, 3, 16, (64, 64), computed=False)
    distances, scores = decode.distances_and_scores("separate", "conv", None)
    return net.model([1, 3, 64, 64], decode.end(decode.boxes(distances, "xywh", None), scores, "combined"), {})


def pictures(count: int, size: tuple[int, int] = (64, 64)) -> list[np.ndarray]:
    """Calibration pictures."""
    return [drawn(size, seed) for seed in range(count)]


def emulate(
    model: onnx.ModelProto,
    normalization: tuple[Sequence[float], Sequence[float]] = BLACK_TO_WHITE,
    count: int = 4,
    **options: Any,
) -> tuple[Emulator, onnx.ModelProto]:
    """The emulator after its work, and the emulated model."""
    file = make_static(Path("toy.onnx"), onnx.ModelProto.FromString(model.SerializeToString()), "")
    emulator = Emulator(file, discover(file), *normalization, **options)
    seen = pictures(count, file.size)
    emulator.measure(lambda: iter(seen))
    return emulator, emulator.quantize(lambda: iter(seen))


def run(model: onnx.ModelProto, picture: np.ndarray, tensors: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Outputs and other tensors of an emulated model, computed as our engine computes them."""
    whole = onnx.ModelProto.FromString(model.SerializeToString())
    names = [o.name for o in whole.graph.output]
    whole.graph.output.extend(onnx.ValueInfoProto(name=t) for t in tensors if t not in names)
    names = [o.name for o in whole.graph.output]
    return dict(zip(names, run_session(open_session(whole), names, {"images": picture[None]}), strict=True))


@functools.cache
def usual(
    normalization: tuple[Sequence[float], Sequence[float]] = BLACK_TO_WHITE, logits: bool = False
) -> tuple[Emulator, onnx.ModelProto]:
    """The ordinary toy, made once: 64x64, DFL, three strides, three classes."""
    return emulate(tiny_yolo(), normalization, logits=logits)


@pytest.fixture(scope="module")
def toy() -> tuple[Emulator, onnx.ModelProto]:
    """The ordinary toy with the shipped script."""
    return usual()


TOYS: dict[str, dict[str, Any]] = {
    "YOLOv8 and 11": {},
    "distances": {"family": "ltrb"},
    "end to end": {"family": "ltrb", "tail": "topk"},
    "not square, 7 classes": {"size": (64, 96), "classes": 7},
    "P2": {"strides": (4, 8, 16, 32)},
    "opset 11": {"opset": 11},
    "opset 13": {"opset": 13},
    "opset 18, unsimplified": {"opset": 18, "simplified": False},
    "opset 20, embedded NMS": {"opset": 20, "tail": "nms"},
    "float16": {"half": True},
    "nameless nodes": {"named": False},
}


@pytest.mark.parametrize("options", TOYS.values(), ids=TOYS.keys())
def test_codes_equal_those_of_numpy(options: dict[str, Any]) -> None:
    """Every tensor of codes, at every rounding point, is what plain numpy computes from the same numbers.

    At most 0.1 % may differ, by one step: sums of floats in another order fall on the other side of a half.
    """
    _, emulated = emulate(tiny_yolo(**options)) if options else usual()

    assert_equals_numpy(emulated, drawn(options.get("size", (64, 64)), 77), options)


def test_codes_equal_those_of_numpy_for_other_scripts() -> None:
    """The same with a normalization of means and deviations inside the model, and with logits."""
    for normalization, logits in ((BLACK_TO_WHITE, True), (IMAGENET, False)):
        _, emulated = usual(normalization, logits)

        assert_equals_numpy(emulated, drawn((64, 64), 78), {}, normalization, logits)


def test_codes_equal_those_of_numpy_with_transposed_convolutions() -> None:
    """A ConvTranspose is a layer with one rounding behind it."""
    _, emulated = emulate(other_yolo(TransposedNet()))

    assert len(roundings(emulated)) == POINTS + 2
    assert_equals_numpy(emulated, drawn((64, 64), 79), {}, kind=TransposedEmulation)


def test_codes_equal_those_of_numpy_with_equalisation() -> None:
    """Behind ReLU a channel may have a scale of its own, and its readers' weights a step for each input channel."""
    _, emulated = emulate(other_yolo(ReluNet()))

    by_channel = [point.scale for point in roundings(emulated) if point.scale.ndim]
    assert len(by_channel) > 5 and all(np.unique(scale).size > 1 for scale in by_channel)
    assert_equals_numpy(emulated, drawn((64, 64), 80), {}, kind=ReluEmulation)


def test_codes_equal_those_of_numpy_with_other_precision() -> None:
    """Layers in 15 bits, weights and outputs; and four weight steps a layer."""
    every = frozenset(n.name for n in tiny_yolo().graph.node if n.op_type == "Conv")
    for precision in (Precision(layers=every), Precision(conv_groups=4, depthwise_groups=3, groups_by_range=True)):
        _, emulated = emulate(tiny_yolo(), precision=precision)

        assert_equals_numpy(emulated, drawn((64, 64), 81), {})


def assert_equals_numpy(
    emulated: onnx.ModelProto,
    picture: np.ndarray,
    options: dict[str, Any],
    normalization: tuple[Sequence[float], Sequence[float]] = BLACK_TO_WHITE,
    logits: bool = False,
    kind: type[NumpyEmulation] = NumpyEmulation,
) -> None:
    """All codes of all rounding points and outputs, at most one in a thousand off, by one."""
    found = run(emulated, picture, [point.codes for point in roundings(emulated)])
    second = kind(emulated, picture, found, *normalization, logits=logits)
    bins = 4 if options.get("family") == "ltrb" else 64
    expected = second.run(options.get("strides", (8, 16, 32)), 8, bins, options.get("classes", 3))
    outputs = [found[o.name][0] for o in emulated.graph.output]
    pairs = [*zip(outputs, expected, strict=True), *((found[name][0], codes) for name, codes in second.codes.items())]

    differences = np.concatenate([np.abs(ours - theirs).ravel() for ours, theirs in pairs])

    assert all(ours.shape == theirs.shape for ours, theirs in pairs)
    assert differences.max() <= 1
    assert (differences > 0).mean() <= 0.001


def test_every_tensor_has_256_values(toy: tuple[Emulator, onnx.ModelProto]) -> None:
    """Over several pictures no tensor takes more than 256 values, and some nearly that many."""
    _, emulated = toy
    weights = set(constants(emulated))
    found = [n for n in emulated.graph.node if n.op_type == "DequantizeLinear" and n.input[0] not in weights]
    activations = [n.output[0] for n in found if n.input[0] != "images"]
    # the six outputs are read as codes: nothing reads the floats behind them
    assert len(activations) == POINTS - 6

    seen: dict[str, set[float]] = {name: set() for name in activations}
    for picture in pictures(3):
        for name, values in run(emulated, picture, activations).items():
            if name in seen:
                seen[name] |= set(values.ravel().tolist())

    assert max(map(len, seen.values())) <= 256 < 2 * max(map(len, seen.values()))


def weighted(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The Convs of a model, in the order of the graph."""
    return [n for n in model.graph.node if n.op_type in WEIGHTED]


def test_every_weight_has_the_step_of_its_layer(toy: tuple[Emulator, onnx.ModelProto]) -> None:
    """One step a layer, and the smallest with which its weights fit -128..127; nothing clipped, nothing corrected.

    Behind a box tensor, which is linear, the output factor gets a 10-bit mantissa: the step may be 1/512 larger.
    """
    _, emulated = toy
    values = constants(tiny_yolo())
    floats = {n.output[0]: values[n.input[1]] for n in weighted(tiny_yolo())}

    for node, layer in zip(weighted(emulated), layers(emulated), strict=True):
        weight = floats[node.output[0]]
        assert (layer.codes.dtype, layer.zero_point, layer.step.size) == (np.int8, 0, 1)
        assert np.array_equal(layer.codes, np.rint(weight / layer.step)), node.output[0]
        ratio = float(layer.step) / max(weight.max() / 127, -weight.min() / 128)
        assert 1 - 1e-6 <= ratio <= 1 + (1 / 512 if node.output[0].startswith("raw_box") else 1e-6), node.output[0]


def test_ranges_are_smallest_and_largest_value(toy: tuple[Emulator, onnx.ModelProto]) -> None:
    """At every rounding point, over the four pictures; the zero point goes up and the upper end stays."""
    _, emulated = toy
    points = {point.codes.removesuffix("/codes"): point for point in roundings(emulated)}
    tensors = [name for name in points if not name.endswith("_probability")]
    seen = [run_onnx(tiny_yolo(), network_input(p), *tensors) for p in pictures(4)]

    assert len(tensors) == POINTS - 3
    for place, name in enumerate(tensors):
        low = min(0.0, *(float(s[place].min()) for s in seen))
        high = max(0.0, *(float(s[place].max()) for s in seen))
        zero = int(np.ceil(-low / (high - low) * 255 - 1e-5))
        assert points[name].zero_point == zero, name
        assert points[name].scale == pytest.approx(high / (255 - zero), rel=1e-5), name


def test_no_rounding_inside_a_layer_and_one_behind_it(toy: tuple[Emulator, onnx.ModelProto]) -> None:
    """Hand count: 32 rounding points; a Conv is followed by its SiLU or sigmoid, only a box Conv by a rounding."""
    _, emulated = toy
    producer = {out: n for n in emulated.graph.node for out in n.output}
    origins = [producer[n.input[0]] for n in emulated.graph.node if n.op_type == "QuantizeLinear"]

    assert len(origins) == POINTS
    kinds = [n.op_type for n in origins]
    # 27 Convs: 3 boxes without activation, 3 classes with a sigmoid (a Sum of straight pieces), 21 with a SiLU
    assert {k: kinds.count(k) for k in kinds} == {"Mul": 21, "Conv": 3, "Sum": 3, "Add": 1, "Concat": 4}
    assert [n.output[0] for n in origins if n.op_type == "Conv"] == ["raw_box_8", "raw_box_16", "raw_box_32"]


def test_only_rounded_values_enter_a_layer(toy: tuple[Emulator, onnx.ModelProto]) -> None:
    """Whatever a Conv, Add or Concat reads comes from codes, at most moved by MaxPool, Resize or Split."""
    _, emulated = toy
    producer = {out: n for n in emulated.graph.node for out in n.output}
    moved = set()
    for node in emulated.graph.node:
        if node.op_type not in ("Conv", "Add", "Concat"):
            continue
        for name in node.input[:1] if node.op_type == "Conv" else node.input:
            while producer[name].op_type in ("MaxPool", "Resize", "Split", "Transpose"):
                moved.add(producer[name].op_type)
                name = producer[name].input[0]
            assert producer[name].op_type == "DequantizeLinear", f"{node.name} reads {name}"

    assert moved == {"MaxPool", "Resize", "Split", "Transpose"}  # Transpose: of the picture


def test_input_and_outputs_are_the_contract_s(toy: tuple[Emulator, onnx.ModelProto]) -> None:
    """`images` is uint8 (1, H, W, 3); outputs are uint8 NHWC in the order of the head, named by role and stride."""
    emulator, emulated = toy
    session = ort.InferenceSession(emulated.SerializeToString(), providers=["CPUExecutionProvider"])

    [image] = session.get_inputs()
    assert (image.name, image.type, image.shape) == ("images", "tensor(uint8)", [1, 64, 64, 3])
    names = ["box8", "cls8", "box16", "cls16", "box32", "cls32"]
    assert [o.name for o in session.get_outputs()] == names == emulator.output_names()
    assert {o.type for o in session.get_outputs()} == {"tensor(uint8)"}
    shapes = [[1, s, s, c] for s in (8, 4, 2) for c in (64, 3)]
    assert [o.shape for o in session.get_outputs()] == shapes
    found = session.run(None, {"images": drawn((64, 64), 5)[None]})
    assert [list(t.shape) for t in found] == shapes and {t.dtype for t in found} == {np.dtype(np.uint8)}


def test_the_spec_says_how_outputs_are_stored(toy: tuple[Emulator, onnx.ModelProto]) -> None:
    """Scale and zero point are those in the graph; classes 1/255 and 0 behind the sigmoid, boxes as measured."""
    emulator, emulated = toy
    values = constants(emulated)
    head = emulator.head_spec()

    for output in head.outputs:
        tensor = f"raw_{output.role}_{output.stride}" + ("_probability" if output.role == "cls" else "")
        assert (output.scale, output.zero_point) == (values[f"{tensor}/scale"], values[f"{tensor}/zero_point"])
        assert output.dtype == "uint8"
        if output.role == "cls":
            assert (output.scale, output.zero_point) == (pytest.approx(1 / 255), 0)
        assert output.activation == ("sigmoid" if output.role == "cls" else "none")


def test_box_tensors_are_not_clipped(toy: tuple[Emulator, onnx.ModelProto]) -> None:
    """The range holds everything measured: strong values at the heads are rare, and they are the detections."""
    for output in toy[0].head_spec().outputs[::2]:
        seen = [run_onnx(tiny_yolo(), network_input(p), f"raw_box_{output.stride}")[0] for p in pictures(4)]
        low, high = dequantize(np.array([0, 255]), output.scale, output.zero_point)
        assert low <= np.min(seen) + output.scale and high >= np.max(seen) - output.scale


def test_logits_are_left_alone() -> None:
    """--logits: no sigmoid in the graph's classes, `none` in the spec, a range that reaches below zero."""
    emulator, emulated = usual(logits=True)
    quantised = {n.input[0] for n in emulated.graph.node if n.op_type == "QuantizeLinear"}

    assert {"raw_cls_8", "raw_cls_16", "raw_cls_32"} <= quantised
    for output in emulator.head_spec().outputs[1::2]:
        assert output.activation == "none" and output.zero_point > 0
    # nothing measured is clipped: the rare high logits are the detections
    for output in emulator.head_spec().outputs[1::2]:
        tensor = f"raw_cls_{output.stride}"
        top = max(run_onnx(tiny_yolo(), network_input(p), tensor)[0].max() for p in pictures(4))
        assert dequantize(np.array(255), output.scale, output.zero_point) >= top - output.scale


@pytest.mark.parametrize("normalization", [BLACK_TO_WHITE, IMAGENET], ids=["0..255", "mean and deviation"])
def test_the_emulation_resembles_the_float_network(
    normalization: tuple[Sequence[float], Sequence[float]],
) -> None:
    """Fed raw bytes, the noise at every head is at most a fifth of the float network's signal (14 dB)."""
    model = tiny_yolo()
    emulator, emulated = usual(normalization)
    raw = cut(model, emulator.layout.tensors)
    signal, noise = np.zeros(6), np.zeros(6)
    for seed in range(3):
        normal = (drawn((64, 64), seed).astype(np.float32) - np.float32(normalization[0])) / np.float32(
            normalization[1]
        )
        exact = run_onnx(raw, np.ascontiguousarray(normal.transpose(2, 0, 1)[None], np.float32))
        found = list(run(emulated, drawn((64, 64), seed)).values())
        for i, (e, f, output) in enumerate(zip(exact, found, emulator.head_spec().outputs, strict=True)):
            e = e.transpose(0, 2, 3, 1)
            e = sigmoid(e) if output.role == "cls" else e
            signal[i] += (e**2).sum()
            noise[i] += ((dequantize(f, output.scale, output.zero_point) - e) ** 2).sum()

    assert (10 * np.log10(signal / noise) > 14).all()


def test_sixteen_bit_outputs() -> None:
    """`outputs` gives 15 bits in uint16 at the six outputs and nowhere else; boxes are 100 times closer."""
    emulator, emulated = emulate(tiny_yolo(), precision=Precision(outputs=frozenset(range(6))))

    assert [r.largest for r in roundings(emulated)].count(32767) == 6 == len(emulator.wide_tensors())
    assert emulator.wide_weights()[:2] == ([], 0)
    outputs = emulator.head_spec().outputs
    assert {o.dtype for o in outputs} == {"uint16"}
    assert [(o.scale, o.zero_point) for o in outputs[1::2]] == [(np.float32(1 / 32767), 0)] * 3
    found = run(emulated, drawn((64, 64), 3), ["raw_box_8"])
    assert found["box8"].dtype == np.uint16
    assert outputs[0].scale < (found["raw_box_8"].max() - found["raw_box_8"].min()) / 10_000
    real = dequantize(found["box8"], outputs[0].scale, outputs[0].zero_point).transpose(0, 3, 1, 2)
    assert np.abs(real - found["raw_box_8"]).max() < 0.01


def test_sixteen_bit_where_it_is_needed_most() -> None:
    """`auto` chooses a few layers, with their weights; the noise at the heads falls, and other variants keep them."""
    emulator, emulated = emulate(tiny_yolo(), precision=Precision(auto=True))

    wide = [r.codes for r in roundings(emulated) if r.largest == 32767]
    assert 1 <= len(wide) <= POINTS / 4
    assert sorted(wide) == sorted(f"{t}/codes" for t in emulator.wide_tensors())
    names, wide_weights, weights = emulator.wide_weights()
    int16 = [layer.codes.size for layer in layers(emulated) if layer.codes.dtype == np.int16]
    assert (len(names), wide_weights) == (len(int16), sum(int16)) and 0 < wide_weights < weights
    assert noise_of(emulator, emulated) < 0.7 * noise_of(*usual())
    again, head = emulator.variant(emulator.precision)
    assert again.SerializeToString(deterministic=True) == emulated.SerializeToString(deterministic=True)
    assert head == emulator.head_spec()
    narrow, _ = emulator.variant(Precision())
    assert narrow.SerializeToString(deterministic=True) == usual()[1].SerializeToString(deterministic=True)


def noise_of(emulator: Emulator, emulated: onnx.ModelProto) -> float:
    """Noise over signal of the boxes of one picture, summed over the strides."""
    exact = run_onnx(cut(tiny_yolo(), emulator.layout.tensors), network_input(drawn((64, 64), 9)))
    found = run(emulated, drawn((64, 64), 9))
    total = 0.0
    for e, output, name in list(zip(exact, emulator.head_spec().outputs, emulator.output_names(), strict=True))[::2]:
        real = dequantize(found[name], output.scale, output.zero_point)
        total += float(((real - e.transpose(0, 2, 3, 1)) ** 2).sum() / (e**2).sum())
    return total


def test_the_noisiest_layers() -> None:
    """The fewest that bring 90 % of the noise, but a quarter of all at most; one at least, none without noise."""
    few = {"a": 1.0, "b": 50.0, "c": 45.0, "d": 1.0, **dict.fromkeys("efghijkl", 0.0)}  # 12 layers, at most 3
    flat = {str(i): 1.0 for i in range(40)}

    assert noisiest(few) == {"b", "c"}
    assert noisiest(few | {"b": 1.0, "c": 1.0}) < set("abcd") and len(noisiest(few | {"b": 1.0, "c": 1.0})) == 3
    assert len(noisiest(flat)) == 10
    assert noisiest({"a": 0.1}) == {"a"} and noisiest({"a": 0.0, "b": 0.0}) == set()


def test_sixteen_bit_layers_by_name() -> None:
    """A named layer has 15-bit codes and 15-bit weights; an unknown name is reported, not ignored."""
    model = tiny_yolo()
    first = next(n for n in model.graph.node if n.op_type == "Conv")
    emulator, emulated = emulate(model, precision=Precision(layers=frozenset([first.name, "no/such/layer"])))

    assert emulator.unknown_layers() == ["no/such/layer"]
    assert [r.largest for r in roundings(emulated)] == [32767] + [255] * (POINTS - 1)
    wide, *others = layers(emulated)
    assert wide.codes.dtype == np.int16 and {layer.codes.dtype for layer in others} == {np.dtype(np.int8)}
    # codes 0..32767 around a zero point; the 32 bits of the accumulator may leave a few at the ends unused
    weight = constants(model)[first.input[1]]
    assert np.array_equal(wide.codes, np.rint(weight / wide.step) + wide.zero_point)
    assert wide.codes.min() >= 0 and np.ptp(wide.codes) > 16384 and 0 < wide.zero_point < 32767
    assert emulator.wide_weights()[0] == [first.name]


def test_quantization_groups() -> None:
    """Two weight steps for ordinary, three for depthwise convolutions; no group's step is larger than the layer's."""
    emulator, _ = usual()
    single = layers(usual()[1])
    for by_range in (False, True):
        grouped, head = emulator.variant(Precision(conv_groups=2, depthwise_groups=3, groups_by_range=by_range))
        assert head == emulator.head_spec()
        for node, one, several in zip(weighted(grouped), single, layers(grouped), strict=True):
            depthwise = one.codes.shape[1] == 1
            steps = several.step.reshape(-1)
            assert len(steps) == len(one.codes) and np.unique(steps).size <= (3 if depthwise else 2)
            assert steps.max() == pytest.approx(float(one.step), rel=1e-6) or node.output[0].startswith("raw_box")
            if not by_range:  # in order: channels beside each other share a step
                assert np.count_nonzero(np.diff(steps)) <= (2 if depthwise else 1)
        assert any(np.unique(layer.step).size == 3 for layer in layers(grouped))


def test_blame() -> None:
    """Shares of the noise, the worst layer first; all weights rounded and all tensors rounded, each for itself."""
    emulator, _ = usual()
    found = emulator.blame(lambda: iter(pictures(1)))
    shares = [share for _, share in found.layers]

    assert 0 < found.weights < 1 and 0 < found.tensors < 1
    assert len(shares) == 5 and shares == sorted(shares, reverse=True) and 0.2 < sum(shares) <= 1
    assert 0 < found.depthwise < 1
    assert {name for name, _ in found.layers} <= {n.name for n in tiny_yolo().graph.node}


def test_pictures_are_streamed() -> None:
    """Of 60 pictures no more than a few are alive at any moment, in each pass over the set."""
    alive: set[int] = set()
    most, passes = 0, 0

    def stream() -> Iterator[np.ndarray]:
        nonlocal most, passes
        passes += 1
        for seed in range(60):
            picture = drawn((64, 64), seed)
            alive.add(id(picture))
            weakref.finalize(picture, alive.discard, id(picture))
            most = max(most, len(alive))
            yield picture

    file = make_static(Path("toy.onnx"), tiny_yolo(), "")
    emulator = Emulator(file, discover(file), *BLACK_TO_WHITE)
    emulator.measure(stream)

    # one on each core, one waiting, one being made
    assert passes == 1 and 1 <= most <= available_cores() + 3


def test_the_correction_takes_no_more_pictures_than_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind what fits into its memory budget the pictures are not even read."""
    monkeypatch.setattr(correction, "MEMORY", 600 << 10)
    file = make_static(Path("toy.onnx"), tiny_yolo(), "")
    emulator = Emulator(file, discover(file), *BLACK_TO_WHITE, level=1)
    emulator.measure(lambda: iter(pictures(2)))
    taken = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:
            taken += 1
            yield drawn((64, 64), taken)

    emulator.quantize(endless)

    assert 1 < emulator.corrected_on == picture_budget(emulator.plan) < correction.MAX_PICTURES
    assert emulator.corrected_on <= taken <= emulator.corrected_on + 1


def test_level_0_reads_the_pictures_once() -> None:
    """Nothing is corrected, so quantising needs no picture; level 1 changes biases and nothing else."""
    file = make_static(Path("toy.onnx"), tiny_yolo(), "")
    plain = Emulator(file, discover(file), *BLACK_TO_WHITE)
    plain.measure(lambda: iter(pictures(4)))
    zero = plain.quantize(lambda: pytest.fail("a picture was asked for"))
    emulator, one = emulate(tiny_yolo(), level=1)

    assert (plain.corrected_on, emulator.corrected_on) == (0, 4)
    different = {n for n, value in constants(one).items() if not np.array_equal(value, constants(zero)[n])}
    assert set(constants(one)) == set(constants(zero))
    assert different and all(name.endswith("/bias") for name in different)


def test_the_same_pictures_give_the_same_model(toy: tuple[Emulator, onnx.ModelProto]) -> None:
    """Twice the same input, byte for byte the same network."""
    again = emulate(tiny_yolo())[1]

    assert again.SerializeToString(deterministic=True) == toy[1].SerializeToString(deterministic=True)


@pytest.mark.parametrize("opset", [11, 18])
def test_a_plain_onnxruntime_reads_the_model(opset: int) -> None:
    """Without our session option the model still loads and runs: whatever the opset of the export was.

    Its codes are not compared: onnxruntime's own integer kernels round elsewhere, and saturate on some CPUs.
    """
    _, emulated = emulate(tiny_yolo(opset=opset), count=2)
    options = ort.SessionOptions()
    options.log_severity_level = 4

    session = ort.InferenceSession(emulated.SerializeToString(), options, providers=["CPUExecutionProvider"])

    assert len(session.run(None, {"images": drawn((64, 64), 5)[None]})) == 6
    onnx.checker.check_model(emulated, full_check=True)
