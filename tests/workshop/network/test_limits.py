"""Small files that claim gigabytes or hours are refused at once; real networks of that size class are not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hefkit.errors import ModelError
from hefkit.workshop.network import session
from hefkit.workshop.network.file import load_onnx
from hefkit.workshop.network.session import open_session, run_session
from tests.conftest import ROOT
from tests.helpers.tiny_onnx import save, tiny_yolo

Change = Callable[[onnx.ModelProto], None]


def sides(height: int, width: int) -> Change:
    """Another input size."""

    def change(model: onnx.ModelProto) -> None:
        dims = model.graph.input[0].type.tensor_type.shape.dim
        dims[2].dim_value, dims[3].dim_value = height, width

    return change


def constant(kind: str, *inputs: list[int]) -> Change:
    """The weights of the first convolution plus an operator on small constants that makes a huge tensor."""

    def change(model: onnx.ModelProto) -> None:
        names = []
        for number, value in enumerate(inputs):
            names.append(f"bomb{number}")
            dtype = np.float32 if number == 0 and kind != "ConstantOfShape" else np.int64
            model.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype), names[-1]))
        conv = next(node for node in model.graph.node if node.op_type == "Conv")
        bomb = helper.make_node(kind, names, ["bomb"], "bomb")
        least = helper.make_node("ReduceMin", ["bomb"], ["least"], "least", keepdims=0)
        add = helper.make_node("Add", [conv.input[1], "least"], ["sum"], "sum")
        conv.input[1] = "sum"
        nodes = [bomb, least, add, *model.graph.node]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(copies)

    return change


def functions(depth: int, *, circle: bool = False) -> Change:
    """Functions that call the next one twice each."""

    def change(model: onnx.ModelProto) -> None:
        opset = model.opset_import[0]
        for level in range(depth):
            following = f"f{(level + 1) % depth}" if circle else f"f{level + 1}"
            kind = ("Identity", "") if level == depth - 1 and not circle else (following, "own")
            nodes = [helper.make_node(kind[0], [a], [b], domain=kind[1]) for a, b in (("x", "y"), ("y", "z"))]
            imports = [opset, helper.make_opsetid("own", 1)]
            model.functions.append(helper.make_function("own", f"f{level}", ["x"], ["z"], nodes, imports))
        model.opset_import.append(helper.make_opsetid("own", 1))
        model.ir_version = 8
        first = model.graph.node[0]
        model.graph.node.insert(0, helper.make_node("f0", [first.input[0]], ["called"], "call", domain="own"))
        model.graph.node[1].input[0] = "called"

    return change


def many_nodes(model: onnx.ModelProto) -> None:
    """A long chain."""
    model.graph.node.extend(helper.make_node("Relu", [f"r{i}"], [f"r{i + 1}"], f"r{i}") for i in range(100_000))


def absurd_type(model: onnx.ModelProto) -> None:
    """An element type that does not exist."""
    model.graph.input[0].type.tensor_type.elem_type = 999


def absurd_weight(model: onnx.ModelProto) -> None:
    """The same for a weight."""
    model.graph.initializer[0].data_type = 999


def loop(trips: int, source: str, carried: str) -> list[onnx.NodeProto]:
    """A Loop that adds nothing, `trips` times."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still"]), helper.make_node("Abs", ["v"], ["w"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("v", 1, None)],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, []), helper.make_tensor_value_info("w", 1, None)],
    )  # fmt: skip
    trip = helper.make_node(
        "Constant", [], ["trips"], "trips", value=numpy_helper.from_array(np.array(trips, np.int64))
    )
    on = helper.make_node("Constant", [], ["on0"], "on0", value=numpy_helper.from_array(np.array(True)))
    return [trip, on, helper.make_node("Loop", ["trips", "on0", source], [carried], "loop", body=body)]


def loop_above(model: onnx.ModelProto) -> None:
    """A Loop between the picture and the first convolution."""
    first = model.graph.node[0]
    nodes = loop(2**40, first.input[0], "looped")
    first.input[0] = "looped"
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in (*nodes, *model.graph.node)]
    del model.graph.node[:]
    model.graph.node.extend(copies)


BOMBS: dict[str, tuple[Change, str]] = {
    "65536 squared": (sides(65536, 65536), "takes an image of 65536 x 65536"),
    "16384 squared": (sides(16384, 16384), "takes an image of 16384 x 16384"),
    "2 to the 31": (sides(2**31, 64), "claims the shape"),
    "wide": (sides(64, 16384), "at most 8192 a side"),
    "Tile": (constant("Tile", [1.0], [2**33]), "computes the tensor 'bomb'"),
    "Expand": (constant("Expand", [1.0], [2**17, 2**17]), "computes the tensor 'bomb'"),
    "Pad": (constant("Pad", [1.0], [0, 2**32]), "computes the tensor 'bomb'"),
    "ConstantOfShape": (constant("ConstantOfShape", [2**34]), "computes the tensor 'bomb'"),
    "a Loop above": (loop_above, "has a Loop"),
    "nested functions": (functions(40), "more than 20000 nodes"),
    "a circle of functions": (functions(3, circle=True), "a function that calls itself"),
    "100,000 nodes": (many_nodes, "more than 20000 nodes"),
    "type of the input": (absurd_type, "has the unknown type 999"),
    "type of a weight": (absurd_weight, "has the unknown type 999"),
}


@pytest.mark.parametrize(("change", "words"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_at_once(tmp_path: Path, change: Change, words: str) -> None:
    """One sentence, in little time."""
    model = tiny_yolo(opset=13)
    change(model)
    begun = time.process_time()

    with pytest.raises(ModelError, match=words):
        load_onnx(save(model, tmp_path / "bomb.onnx"))

    assert time.process_time() - begun < 5


def test_functions_that_are_used_modestly(tmp_path: Path) -> None:
    """They are put in place, as ever."""
    model = tiny_yolo(opset=13)
    functions(3)(model)

    assert load_onnx(save(model, tmp_path / "f.onnx")).size == (64, 64)


def looping(trips: int) -> onnx.ModelProto:
    """Only a Loop."""
    graph = helper.make_graph(
        loop(trips, "x", "y"),
        "g",
        [helper.make_tensor_value_info("x", 1, [4])],
        [helper.make_tensor_value_info("y", 1, None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def test_a_run_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the heads a Loop may be real; one that runs for years is ended."""
    feed = {"x": np.zeros(4, np.float32)}
    assert np.array_equal(run_session(open_session(looping(3)), ["y"], feed)[0], feed["x"])

    monkeypatch.setattr(session, "MAX_RUN_S", 0.2)
    with pytest.raises(ModelError, match="s for one picture; expected an exported YOLO"):
        run_session(open_session(looping(2**40)), ["y"], feed)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_hears_signals(number: signal.Signals, code: int) -> None:
    """onnxruntime computes in C, where Python cannot handle a signal."""
    program = (
        "import numpy as np, sys, threading, os, time\nfrom hefkit import cli\n"
        "from hefkit.workshop.network.session import open_session, run_session\n"
        "from tests.workshop.network.test_limits import looping\n"
        "def main(argv):\n"
        "    session = open_session(looping(2**40))\n"
        "    print('ready', flush=True)\n"
        "    run_session(session, ['y'], {'x': np.zeros(4, np.float32)})\n"
        "    return 0\n"
        "cli.run(main)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        time.sleep(0.2)
        os.kill(process.pid, number)
        assert process.wait(20) == code
