"""Our arithmetic against real archives of Hailo's compiler, where they lie beside the project."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hefkit.workshop.emulator.arithmetic import layer_numbers
from hefkit.workshop.emulator.pieces import SIGMOID, coded
from tests.conftest import ROOT, SHARED
from tests.helpers.hailo_archive import CONVOLUTIONS, WEIGHTED, Archive, Layer

HAILO = SHARED / "hailo"
NAMES = ("relu_8bit", "mlp_logits", "relu_16bit")
LAYERS = {"relu_8bit": 5, "mlp_logits": 3, "relu_16bit": 5}

pytestmark = pytest.mark.skipif(not HAILO.is_dir(), reason=f"no archives of Hailo's compiler in {HAILO}")


@pytest.fixture(params=NAMES)
def archive(request: pytest.FixtureRequest) -> Archive:
    """One archive after the other."""
    return Archive(HAILO / request.param)


def weighted(archive: Archive) -> list[Layer]:
    """The layers with weights."""
    return [layer for layer in archive.layers.values() if layer.kind in WEIGHTED]


def test_every_integer(archive: Archive) -> None:
    """The benchmark: all codes and biases equal, K to 1e-5, zero points, shifts, ranges; predicted scales to 1e-6."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/bench_archives.py", archive.folder, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = json.loads(done.stdout.splitlines()[-1])["archives"][0]["layers"]

    assert len(rows) == LAYERS[archive.name]
    for row in rows:
        assert row["bits"] == (15 if archive.name == "relu_16bit" else 8)
        assert row["codes_equal"] == row["bias_equal"] == 1, row
        assert row["k_ratio"] == pytest.approx(1, abs=1e-5)
        assert row["zero_point_equal"] is True and row["mac_shift_equal"] is True
        assert row["range_ratio"] == pytest.approx(1, abs=1e-6)
        assert row["why"] is None
        predicted = row["predicted"]
        assert predicted["scale_median_ratio"] == pytest.approx(1, abs=1e-6)
        assert predicted["scale_worst_ratio"] == pytest.approx(1, abs=1e-6)
        assert abs(predicted["kernel_snr_db"] - predicted["kernel_snr_db_archive"]) < 0.01


def test_to_the_last_bit(archive: Archive) -> None:
    """Behind one slope kernel scales, output factors and bias steps are the archive's float32 numbers themselves."""
    for layer in weighted(archive):
        found = layer_numbers(layer.float_layer, layer.input_scale, layer.bits, output=layer.output)
        factor = layer.value("act_op/output_factors")
        if layer.activation == "sigmoid":
            np.testing.assert_allclose(found.output_factor, factor, rtol=2e-7)
            continue
        assert found.output_factor.astype(np.float32)[:1].tolist() == factor.tolist()
        expected = layer.kernel_scale.astype(np.float32)
        assert np.array_equal(np.broadcast_to(found.kernel_scale, expected.shape), expected)
        assert np.array_equal(found.accumulator_scale, layer.value("conv_op/output_scale:0"))
        assert found.shift_delta == pytest.approx(float(layer.value("conv_op/shift_delta")[0]), abs=1e-5)


def test_inputs(archive: Archive) -> None:
    """The measured range, also where 15-bit layers read it."""
    first = next(iter(archive.layers.values()))
    found = archive.input_codes(first)

    assert found.zero_point == int(first.value("zero_point_out", "q"))
    np.testing.assert_allclose(first.value("layer_params/output_scales"), found.scale, rtol=1e-6)
    for layer in archive.layers.values():
        if layer.widens:
            wide = archive.input_codes(first, layer.output_bits)
            np.testing.assert_allclose(layer.value("layer_params/output_scales"), wide.scale, rtol=1e-6)


def test_the_pieces_of_the_sigmoid() -> None:
    """All stored integers, 8 and 15 bits."""
    for name, bits in (("relu_8bit", 8), ("relu_16bit", 15)):
        layer = Archive(HAILO / name).layers["jet_classifier/fc2"]
        step = float(layer.value("conv_op/output_scale:0")[0])
        found = coded(SIGMOID, step, float(layer.output.scale[0]), layer.output.zero_point, bits)
        stored = {
            key: layer.value(f"output_stage/piecewise/{key}", "q")[0, 1:-1].tolist()
            for key in ("x_points", "offsets", "slopes_m", "slopes_e")
        }
        assert stored == {
            "x_points": found.breaks.tolist(),
            "offsets": found.offsets.tolist(),
            "slopes_m": found.mantissas.tolist(),
            "slopes_e": found.exponents.tolist(),
        }


def test_the_float_weights_are_those_of_the_onnx(archive: Archive) -> None:
    """What the benchmark calls the float network is `model.onnx`, up to the order of a flattened map."""
    model = onnx.load(archive.folder / "model.onnx")
    constants = {_sorted(numpy_helper.to_array(t)) for t in model.graph.initializer}
    for layer in weighted(archive):
        assert _sorted(layer.value("kernel", "fpo")) in constants
        assert _sorted(layer.value("bias", "fpo")) in constants


def _sorted(values: np.ndarray) -> bytes:
    return np.sort(values.astype(np.float32), axis=None).tobytes()


def test_static_channels(archive: Archive) -> None:
    """The compiler empties channels of convolutions that never leave zero, and leaves dense layers alone."""
    for layer in weighted(archive):
        emptied = layer.onnx_layout(layer.value("kernel", "ho"))
        assert np.array_equal(layer.float_layer.weight, emptied)
        static = layer.value("stats/output_0/max") == 0
        if static.any():
            assert (not emptied[static].any()) == (layer.kind in CONVOLUTIONS)


def test_what_the_archives_do_not_show() -> None:
    """Rules marked [I]: no depthwise layer, no addition, no curve but the sigmoid, no zero point but 0 and 255."""
    layers = [layer for name in NAMES for layer in Archive(HAILO / name).layers.values()]

    assert {layer.kind for layer in layers} == {
        "input_layer", "conv", "maxpool", "dense", "output_layer", "activation"
    }  # fmt: skip
    assert {layer.activation for layer in layers if layer.kind in WEIGHTED} == {"none", "relu", "sigmoid"}
    assert {layer.output.zero_point for layer in layers if layer.kind in WEIGHTED} == {0, 255}
