"""Opening an ONNX: what is read from it, what is made static, and what is refused in one line."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, external_data_helper, helper

from hefkit.errors import ModelError
from hefkit.workshop.network.file import load_onnx
from tests.helpers.tiny_onnx import network_input, run_onnx, save, tiny_yolo

Change = Callable[[onnx.ModelProto], object]


@pytest.fixture(scope="module")
def tiny() -> onnx.ModelProto:
    """The ordinary toy, shared: tests copy before they change it."""
    return tiny_yolo()


def changed(model: onnx.ModelProto, change: Change) -> onnx.ModelProto:
    """A changed copy."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    change(copy)
    return copy


def input_shape(*dims: int | str) -> Change:
    """A change: the input gets this shape."""

    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("images", TensorProto.FLOAT, dims))

    return change


def note(key: str, value: str) -> Change:
    """A change: one entry of the metadata is set."""

    def change(model: onnx.ModelProto) -> None:
        kept = {p.key: p.value for p in model.metadata_props} | {key: value}
        helper.set_model_props(model, kept)

    return change


def second_input(model: onnx.ModelProto) -> None:
    """A change: PaddleDetection's exports ask for a scale factor beside the image."""
    model.graph.input.append(helper.make_tensor_value_info("scale_factor", TensorProto.FLOAT, [1, 2]))


def unknown_operator(model: onnx.ModelProto) -> None:
    """A change: one node has an operator that ONNX does not know."""
    model.graph.node[3].op_type = "Nonsense"


def test_reads_size_dtype_names_and_hash(tiny: onnx.ModelProto, tmp_path: Path) -> None:
    path = save(tiny, tmp_path / "tiny.onnx")

    file = load_onnx(path)

    assert (file.file, file.input_name, file.size, file.dtype) == ("tiny.onnx", "images", (64, 64), "float32")
    assert file.names == {0: "thing0", 1: "thing1", 2: "thing2"}
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert file.warnings == ()


def test_height_comes_before_width(tmp_path: Path) -> None:
    file = load_onnx(save(tiny_yolo(size=(64, 96)), tmp_path / "wide.onnx"))

    assert file.size == (64, 96)


def test_float16_input(tmp_path: Path) -> None:
    assert load_onnx(save(tiny_yolo(half=True), tmp_path / "half.onnx")).dtype == "float16"


@pytest.mark.parametrize(
    ("dynamic", "imgsz", "size"),
    [
        pytest.param("batch", None, (64, 64), id="dynamic batch becomes 1"),
        pytest.param("size", (96, 64), (96, 64), id="dynamic size becomes imgsz"),
        pytest.param("no", (64, 64), (64, 64), id="imgsz may repeat a fixed size"),
    ],
)
def test_dynamic_inputs_become_static(
    dynamic: str, imgsz: tuple[int, int] | None, size: tuple[int, int], tmp_path: Path
) -> None:
    file = load_onnx(save(tiny_yolo(dynamic=dynamic), tmp_path / "tiny.onnx"), imgsz)

    dims = file.model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims] == [1, 3, *size]
    assert file.size == size
    assert not file.model.graph.value_info  # what was noted for other sizes is gone
    (raw,) = run_onnx(file.model, network_input(np.zeros((*size, 3), np.uint8)))
    assert raw.shape == (1, 7, sum(size[0] * size[1] // s**2 for s in (8, 16, 32)))


def test_every_node_gets_a_name_of_its_own(tmp_path: Path) -> None:
    path = save(tiny_yolo(named=False), tmp_path / "nameless.onnx")

    file, again = load_onnx(path), load_onnx(path)

    names = [n.name for n in file.model.graph.node]
    assert "" not in names and len(set(names)) == len(names)
    assert names == [n.name for n in again.model.graph.node]  # the same ones every time
    assert len(file.warnings) == 1 and "no name of their own" in file.warnings[0]


def test_doubled_node_names_become_unique(tiny: onnx.ModelProto, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[5].name = model.graph.node[4].name

    names = [n.name for n in load_onnx(save(changed(tiny, change), tmp_path / "a.onnx")).model.graph.node]

    assert len(set(names)) == len(names)


def test_unsorted_nodes_are_sorted(tiny: onnx.ModelProto, tmp_path: Path) -> None:
    """float16 converters append their Casts to the end; onnxruntime accepts that, the checker does not."""
    order = np.random.default_rng(0).permutation(len(tiny.graph.node))

    def shuffle(model: onnx.ModelProto) -> None:
        del model.graph.node[:]
        model.graph.node.extend(tiny.graph.node[i] for i in order)

    file = load_onnx(save(changed(tiny, shuffle), tmp_path / "shuffled.onnx"))

    picture = network_input(np.full((64, 64, 3), 90, np.uint8))
    np.testing.assert_array_equal(run_onnx(file.model, picture)[0], run_onnx(tiny, picture)[0])


def test_sorted_nodes_keep_their_order(tiny: onnx.ModelProto, tmp_path: Path) -> None:
    file = load_onnx(save(tiny, tmp_path / "tiny.onnx"))

    assert [n.name for n in file.model.graph.node] == [n.name for n in tiny.graph.node]


def test_a_circle_is_refused(tiny: onnx.ModelProto, tmp_path: Path) -> None:
    def close(model: onnx.ModelProto) -> None:
        model.graph.node[1].input[0] = model.graph.node[2].output[0]

    with pytest.raises(ModelError, match="not a valid ONNX"):
        load_onnx(save(changed(tiny, close), tmp_path / "circle.onnx"))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        pytest.param("{0: 'drone', 1: 'bird'}", {0: "drone", 1: "bird"}, id="dict"),
        pytest.param("['drone', 'bird']", {0: "drone", 1: "bird"}, id="list"),
        pytest.param("{0: 7, 1: 8}", {0: "7", 1: "8"}, id="numbers as names"),
        pytest.param("{0: 'a\\nb\\x1b[31m'}", {0: "a b\\x1b[31m"}, id="control characters are escaped"),
        pytest.param("{0: '" + "x" * 500 + "'}", {0: "x" * 197 + "..."}, id="long names are cut"),
    ],
)
def test_class_names(tiny: onnx.ModelProto, text: str, names: dict[int, str], tmp_path: Path) -> None:
    file = load_onnx(save(changed(tiny, note("names", text)), tmp_path / "a.onnx"))

    assert file.names == names


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{0: drone}", id="no literal"),
        pytest.param("__import__('os').getcwd()", id="code"),
        pytest.param("'drone'", id="a text"),
        pytest.param("{'a': 'drone'}", id="keys that are no numbers"),
        pytest.param("{-1: 'drone'}", id="negative class"),
        pytest.param("{True: 'drone'}", id="bool class"),
        pytest.param("[" * 5000, id="deep nesting"),
        pytest.param("[" + "'drone'," * 200_000 + "]", id="more than a megabyte"),
    ],
)
def test_junk_names_give_none_and_a_warning(tiny: onnx.ModelProto, text: str, tmp_path: Path) -> None:
    file = load_onnx(save(changed(tiny, note("names", text)), tmp_path / "a.onnx"))

    assert file.names == {}
    assert len(file.warnings) == 1 and "class names" in file.warnings[0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"\xff\xd8\xff\xe0" + b"x" * 50, "JPEG picture", id="JPEG"),
        pytest.param(b"\x89PNG\r\n\x1a\n", "PNG picture", id="PNG"),
        pytest.param(b"PK\x03\x04" + b"x" * 50, "PyTorch checkpoint", id="checkpoint"),
        pytest.param(b"\x01HEF" + b"\0" * 50, "already compiled", id="HEF"),
        pytest.param(b"<!DOCTYPE html>", "HTML", id="HTML"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer", id="LFS pointer"),
        pytest.param(b"\x1c\0\0\0TFL3" + b"\0" * 50, "TensorFlow Lite", id="TFLite"),
        pytest.param(b"hello world, this is not a model", "does not parse", id="text"),
        pytest.param(bytes(range(1, 200)), "does not parse", id="garbage"),
        pytest.param(onnx.ModelProto(ir_version=8).SerializeToString(), "holds no network", id="no graph"),
    ],
)
def test_other_files_are_named(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)

    with pytest.raises(ModelError, match=words):
        load_onnx(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.9999])
def test_truncated_files_are_refused(tiny: onnx.ModelProto, share: float, tmp_path: Path) -> None:
    data = tiny.SerializeToString()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: int(len(data) * share)])

    with pytest.raises(ModelError):
        load_onnx(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        load_onnx(tmp_path / "nowhere.onnx")
    with pytest.raises(ModelError, match="is a folder"):
        load_onnx(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(input_shape(4, 3, 64, 64), "batch 4.*batch=1", id="batch 4"),
        pytest.param(input_shape(1, 64, 64, 3), "NHWC", id="channels last"),
        pytest.param(input_shape(1, 1, 64, 64), "1 channel.*RGB", id="grey"),
        pytest.param(input_shape(1, 3, 64), "3 dimensions", id="no image"),
        pytest.param(input_shape(1, 3, "height", "width"), "dynamic size.*--imgsz", id="dynamic size without imgsz"),
        pytest.param(second_input, "2 inputs.*images, scale_factor", id="two inputs"),
        pytest.param(lambda m: m.graph.input.pop(), "not a valid ONNX", id="no input"),
        pytest.param(lambda m: setattr(m.opset_import[0], "version", 10), "opset 10", id="old opset"),
        pytest.param(lambda m: setattr(m.opset_import[0], "version", 99), "opset 99", id="opset of the future"),
        pytest.param(lambda m: setattr(m, "ir_version", 99), "IR version 99", id="IR of the future"),
        pytest.param(
            lambda m: setattr(m.graph.node[3], "op_type", "Nonsense"), "is not a valid ONNX", id="unknown operator"
        ),
        pytest.param(note("hefkit.kind", "emulated"), "emulated model", id="our own emulation"),
    ],
)
def test_what_cannot_be_a_source_is_refused(tiny: onnx.ModelProto, change: Change, words: str, tmp_path: Path) -> None:
    path = save(changed(tiny, change), tmp_path / "model.onnx")

    with pytest.raises(ModelError, match=words):
        load_onnx(path)


def test_uint8_input_is_refused(tmp_path: Path) -> None:
    image = helper.make_tensor_value_info("images", TensorProto.UINT8, [1, 3, 64, 64])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 64, 64])
    graph = helper.make_graph(
        [helper.make_node("Cast", ["images"], ["y"], to=TensorProto.FLOAT)], "g", [image], [output]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8)

    with pytest.raises(ModelError, match=r"uint8.*float32"):
        load_onnx(save(model, tmp_path / "u8.onnx"))


def test_imgsz_may_not_contradict_a_fixed_size(tiny: onnx.ModelProto, tmp_path: Path) -> None:
    path = save(tiny, tmp_path / "tiny.onnx")

    with pytest.raises(ModelError, match=r"fixed width 64.*96.*--imgsz"):
        load_onnx(path, (64, 96))


def test_external_data_is_loaded_and_missed(tiny: onnx.ModelProto, tmp_path: Path) -> None:
    model = changed(tiny, lambda m: external_data_helper.convert_model_to_external_data(m, location="weights.bin"))
    onnx.save(model, tmp_path / "big.onnx")
    picture = network_input(np.full((64, 64, 3), 90, np.uint8))

    (got,) = run_onnx(load_onnx(tmp_path / "big.onnx").model, picture)
    np.testing.assert_array_equal(got, run_onnx(tiny, picture)[0])

    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match="second file"):
        load_onnx(tmp_path / "big.onnx")


def test_weights_listed_as_inputs_are_no_images(tiny: onnx.ModelProto, tmp_path: Path) -> None:
    """Up to IR version 3 every initializer had to be an input as well."""

    def change(model: onnx.ModelProto) -> None:
        model.ir_version = 3
        model.graph.input.extend(
            helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer
        )

    file = load_onnx(save(changed(tiny, change), tmp_path / "old.onnx"))

    assert file.input_name == "images"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 255)), min_size=1, max_size=8))
def test_flipped_bytes_give_a_model_or_one_error(
    tiny: onnx.ModelProto, tmp_path: Path, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(tiny.SerializeToString())
    for where, value in flips:
        data[where % len(data)] = value
    path = tmp_path / "flipped.onnx"
    path.write_bytes(data)

    try:
        file = load_onnx(path)
    except ModelError:
        return
    assert file.model.graph.node


@pytest.mark.parametrize("content", [b"anything", bytes(257) + b"ustar\0" + bytes(300)], ids=["by name", "by content"])
def test_a_har_belongs_to_its_flag(tmp_path: Path, content: bytes) -> None:
    """The compiler's archive, given in place of the ONNX."""
    path = tmp_path / ("drone.har" if content == b"anything" else "drone.onnx")
    path.write_bytes(content)

    with pytest.raises(ModelError, match=r"looks like a HAR .* MODEL\.onnx --har drone\."):
        load_onnx(path)
