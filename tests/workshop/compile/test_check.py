"""The parsed graph against what was asked, and the compiled HEF read back: every way in which they can be another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from hefkit.errors import ToolchainError
from hefkit.hef.file import Hef, read_hef
from hefkit.hef.streams import VStream
from hefkit.spec import HeadSpec
from hefkit.workshop.compile.check import check_hef
from hefkit.workshop.compile.script import safe_scope
from hefkit.workshop.dfc.graph import Output, ParsedGraph
from tests.helpers.sdk_run import Bench

SIZE = (64, 64)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A toy network."""
    return Bench.make(tmp_path_factory.mktemp("bench"))


def event(bench: Bench) -> dict[str, Any]:
    """What the worker tells of the toy, its output layers numbered as the end nodes are."""
    outputs = [
        {
            "name": f"net/output_layer{k + 1}",
            "producer": f"net/conv{41 + k}",
            "shape": [-1, *conv.shape],
            "original_names": [conv.node_name],
        }
        for k, conv in enumerate(bench.layout.convs)
    ]
    layers = {o["producer"]: {"type": "conv", "original_names": o["original_names"]} for o in outputs}
    layers["net/conv1"] = {"type": "conv", "original_names": ["/stem/Conv", "/stem/Sigmoid", "/stem/Mul"]}
    layers["other/conv1"] = {"type": "conv", "original_names": []}
    return {"inputs": [{"name": "net/input_layer1", "shape": [-1, 64, 64, 3]}], "outputs": outputs, "layers": layers}


def test_outputs_in_any_order_are_matched_by_their_onnx_names(bench: Bench) -> None:
    """The order that we ask for is what evidence shows; should a release sort otherwise, the names tell."""
    told = event(bench)
    straight = ParsedGraph.from_event(told).matched(bench.layout, SIZE)
    told["outputs"].reverse()

    assert ParsedGraph.from_event(told).matched(bench.layout, SIZE) == straight
    assert [o.producer for o in straight] == [f"net/conv{41 + k}" for k in range(6)]


def test_without_names_the_order_counts(bench: Bench) -> None:
    """No ONNX names, or the same name twice: position and shape decide."""
    told = event(bench)
    for output in told["outputs"]:
        output["original_names"] = []

    assert [o.name[-1] for o in ParsedGraph.from_event(told).matched(bench.layout, SIZE)] == list("123456")


def change(**changes: Any) -> Callable[[dict[str, Any]], None]:
    """Change the first output."""
    return lambda told: told["outputs"][0].update(changes)


WRONG_GRAPHS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "five outputs": (lambda t: t["outputs"].pop(), "it has 5 outputs, expected 6"),
    "another shape": (change(shape=[-1, 16, 16, 64]), "net/conv41 is (16, 16, 64) where the box head at stride 8"),
    "another input": (lambda t: t["inputs"][0].update(shape=[-1, 32, 32, 3]), "its input is [(32, 32, 3)]"),
    "two inputs": (lambda t: t["inputs"].append(t["inputs"][0]), "its input is [(64, 64, 3), (64, 64, 3)]"),
    "reversed, without names": (
        lambda t: (t["outputs"].reverse(), [o.update(original_names=[]) for o in t["outputs"]]),
        "where the box head at stride 8",
    ),
}  # fmt: skip


@pytest.mark.parametrize("spoil, words", WRONG_GRAPHS.values(), ids=WRONG_GRAPHS.keys())
def test_another_graph_is_refused(bench: Bench, spoil: Callable[[dict[str, Any]], Any], words: str) -> None:
    """Number, shapes, strides and the input must be those of the heads that were found."""
    told = event(bench)
    spoil(told)

    with pytest.raises(ToolchainError, match="parsed another network than hefkit asked for") as caught:
        ParsedGraph.from_event(told).matched(bench.layout, SIZE)
    assert words in str(caught.value)


def test_layers_by_any_of_their_names(bench: Bench) -> None:
    """`conv41`, `net/conv41`, or a node of the ONNX; ambiguous and unknown names give None."""
    graph = ParsedGraph.from_event(event(bench))

    assert graph.resolve("conv41") == graph.resolve("net/conv41") == "conv41"
    assert graph.resolve("/stem/Conv") == "conv1" and graph.resolve(bench.layout.convs[0].node_name) == "conv41"
    assert graph.resolve("conv1") is None and graph.resolve("conv99") is None


SCOPES = {"best": "best", "my.model-1": "my_model_1", "8n": "net_8n", "über": "ber", "...": "net", "a" * 99: "a" * 40}


@pytest.mark.parametrize("name, scope", SCOPES.items(), ids=SCOPES.keys())
def test_scopes(name: str, scope: str) -> None:
    """The network's name becomes part of every layer's: letters, digits and underscores."""
    assert safe_scope(name) == scope


# --- the HEF ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiled(bench: Bench) -> tuple[Hef, tuple[Output, ...]]:
    """A HEF with 8-bit outputs and baked sigmoids."""
    with bench.dfc() as dfc:
        _, outputs = bench.parse(dfc)
        bench.quantize(dfc, outputs)
        dfc.compile(bench.folder / "toy.hef")
    return read_hef(bench.folder / "toy.hef"), outputs


def check(bench: Bench, hef: Hef, outputs: Sequence[Output], **asked: Any) -> HeadSpec:
    """With what the toy was compiled for, unless `asked` says otherwise."""
    asked = {"arch": "hailo8", "size": SIZE, "wide": frozenset(), "baked": True, **asked}
    return check_hef(hef, bench.layout.to_head_spec(), outputs, **asked)


def test_the_spec_gets_its_numbers_from_the_hef(bench: Bench, compiled: tuple[Hef, tuple[Output, ...]]) -> None:
    """Streams, code types, scales, zero points, activations; box, cls, by stride, in any order of the file."""
    hef, outputs = compiled
    head = check(bench, hef, outputs)
    group = hef.groups[0]
    shuffled = replace(hef, groups=(replace(group, outputs=group.outputs[::-1]),))

    assert [o.stream for o in head.outputs] == [o.producer for o in outputs]
    assert [o.activation for o in head.outputs] == ["none", "sigmoid"] * 3
    for output, stream in zip(head.outputs, group.outputs, strict=True):
        assert (output.dtype, output.scale, output.zero_point) == (stream.dtype, stream.scale, stream.zero_point)
    assert check(bench, shuffled, outputs) == head


def test_streams_of_other_names(bench: Bench, compiled: tuple[Hef, tuple[Output, ...]]) -> None:
    """Should the SDK rename a layer on the way, the ONNX names in the file find it, and at last its place."""
    hef, outputs = compiled
    renamed = with_streams(hef, lambda s, _: replace(s, name=f"{s.name}_fixed"))
    nameless = with_streams(renamed, lambda s, _: replace(s, original_names=()))

    for variant in (renamed, nameless):
        assert [o.stream for o in check(bench, variant, outputs).outputs] == [f"{o.producer}_fixed" for o in outputs]


def with_streams(hef: Hef, change: Callable[[VStream, int], VStream]) -> Hef:
    """The HEF with changed output streams."""
    group = hef.groups[0]
    streams = tuple(change(stream, i) for i, stream in enumerate(group.outputs))
    return replace(hef, groups=(replace(group, outputs=streams), *hef.groups[1:]))


def first(**changes: Any) -> Callable[[Hef], Hef]:
    """Change the first stream, a box tensor."""
    return lambda hef: with_streams(hef, lambda s, i: replace(s, **changes) if i == 0 else s)


def second(**changes: Any) -> Callable[[Hef], Hef]:
    """Change the second stream, a class tensor."""
    return lambda hef: with_streams(hef, lambda s, i: replace(s, **changes) if i == 1 else s)


def without_last(hef: Hef) -> Hef:
    """Five outputs."""
    group = hef.groups[0]
    return replace(hef, groups=(replace(group, outputs=group.outputs[:-1]),))


WRONG_HEFS: dict[str, tuple[Callable[[Hef], Hef], dict[str, Any], str]] = {
    "another chip": (lambda hef: replace(hef, arch="hailo8l"), {}, "it is for hailo8l, expected hailo8"),
    "a wrong checksum": (lambda hef: replace(hef, digest_ok=False), {}, "checksum"),
    "five outputs": (without_last, {}, "it has 5 outputs, expected 6"),
    "another size": (lambda hef: hef, {"size": (32, 32)}, "its input is [64, 64, 3] uint8"),
    "another shape": (first(shape=(8, 8, 32)), {}, "is [8, 8, 32], expected [8, 8, 64]"),
    "16 bit demoted": (lambda hef: hef, {"wide": frozenset({0})}, "8-bit codes although 16 bit were asked for"),
    "a stale zero point": (first(zero_point=18_000.0), {}, "the zero point 18000, which do not fit uint8"),
    "a scale of zero": (first(scale=0.0), {}, "the scale 0"),
    "floats": (first(dtype="float32"), {}, "expected uint8 or uint16 codes"),
    "no sigmoid": (second(scale=0.1, zero_point=200.0), {}, "which are logits; expected probabilities; use --logits"),
    "a sigmoid": (lambda hef: hef, {"baked": False}, "from 0 to 1, which are probabilities; expected logits; remove"),
}  # fmt: skip


@pytest.mark.parametrize("spoil, asked, words", WRONG_HEFS.values(), ids=WRONG_HEFS.keys())
def test_another_hef_is_refused(
    bench: Bench,
    compiled: tuple[Hef, tuple[Output, ...]],
    spoil: Callable[[Hef], Hef],
    asked: dict[str, Any],
    words: str,
) -> None:
    """Exit 5, and what is wrong."""
    hef, outputs = compiled

    with pytest.raises(ToolchainError, match="is not what was asked for") as caught:
        check(bench, spoil(hef), outputs, **asked)
    assert words in str(caught.value)


def test_scales_per_feature(bench: Bench, compiled: tuple[Hef, tuple[Output, ...]]) -> None:
    """Lists of one number a channel pass through; one bad channel is enough to refuse."""
    hef, outputs = compiled
    scales, zeros = (0.05,) * 64, (100.0,) * 64
    good, bad = first(scale=scales, zero_point=zeros), first(scale=scales, zero_point=(*zeros[1:], 300.0))

    assert check(bench, good(hef), outputs).outputs[0].scale == scales
    with pytest.raises(ToolchainError, match="do not fit"):
        check(bench, bad(hef), outputs)


PROBABILITIES = {
    "8 bit": {"scale": 1 / 255},
    "8 bit after an overflow": {"scale": 2 / 255},
    "a measured range": {"scale": 0.00343},
    "15 bit": {"dtype": "uint16", "scale": 1 / 32767},
    "15 bit after an overflow": {"dtype": "uint16", "scale": 2 / 32767},
    "15 bit of a measured range": {"dtype": "uint16", "scale": 0.875 / 32767},
    "full 16 bit": {"dtype": "uint16", "scale": 1 / 65535},
    "by feature": {"scale": (1 / 255, 0.00343, 2 / 255), "zero_point": (0.0, 0.0, 0.0)},
    "zero rounded up": {"scale": 1 / 250, "zero_point": 5.0},
}


@pytest.mark.parametrize("codes", PROBABILITIES.values(), ids=PROBABILITIES.keys())
def test_what_is_read_as_probabilities(
    bench: Bench, compiled: tuple[Hef, tuple[Output, ...]], codes: dict[str, Any]
) -> None:
    """All scales that the compiler's releases give a sigmoid; the spec gets them as they are."""
    hef, outputs = compiled
    head = check(bench, second(**{"zero_point": 0.0, **codes})(hef), outputs)

    assert (head.outputs[1].activation, head.outputs[1].scale) == ("sigmoid", codes["scale"])
    assert head.outputs[1].dtype == codes.get("dtype", "uint8")


LOGITS = {
    "8 bit": {"scale": 0.1, "zero_point": 200.0},
    "15 bit": {"dtype": "uint16", "scale": 20 / 32767, "zero_point": 25000.0},
    "too large for a probability": {"scale": 1.5 / 255, "zero_point": 0.0},
    "15 bit, too large": {"dtype": "uint16", "scale": 4 / 32767, "zero_point": 0.0},
    "below zero": {"scale": 1 / 255, "zero_point": 10.0},
    "one of three features": {"scale": (1 / 255, 1 / 255, 0.1), "zero_point": (0.0, 0.0, 200.0)},
}


@pytest.mark.parametrize("codes", LOGITS.values(), ids=LOGITS.keys())
def test_what_is_read_as_logits(bench: Bench, compiled: tuple[Hef, tuple[Output, ...]], codes: dict[str, Any]) -> None:
    """Refused where probabilities were asked for; with --logits the other class tensors would be wrong instead."""
    hef, outputs = compiled

    with pytest.raises(ToolchainError, match=r"which are (logits|neither .*); expected probabilities"):
        check(bench, second(**codes)(hef), outputs)


def test_two_names_of_one_chip(bench: Bench, compiled: tuple[Hef, tuple[Output, ...]]) -> None:
    """HailoRT 5 gives HEFs for the 10H and the 15H the same number."""
    hef, outputs = compiled

    check(bench, replace(hef, arch="hailo15h"), outputs, arch="hailo10h")
    with pytest.raises(ToolchainError, match="it is for hailo15h"):
        check(bench, replace(hef, arch="hailo15h"), outputs)
