"""Network groups of a HEF: chip, extensions, names, layouts of a part of the clusters, and the order of outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest

from hefkit.errors import ModelError
from hefkit.hef.file import Hef
from tests.conftest import AsHef
from tests.helpers.hef_kinds import FLOW, KINDS, genai_hef, layout, partial_hef
from tests.helpers.tiny_hef import (
    HAILO8L,
    PERIPH,
    YOLO_ORDER,
    checked,
    context,
    core,
    edge,
    f64,
    field,
    group,
    hef,
    hef_file,
    info,
    input_layer,
    net_flow_group,
    yolo_hef,
    yolo_layers,
)


def names(found: Hef) -> list[str]:
    """Outputs of the default group."""
    return [stream.name for stream in found.groups[0].outputs]


def yolo(**kwargs: int | Sequence[int]) -> bytes:
    """The toy YOLO for some chip, with some extensions."""
    return hef_file(hef(group(yolo_layers(), YOLO_ORDER), **kwargs))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read(as_hef: AsHef, kind: str) -> None:
    """Whatever else the tests look at: inputs, outputs, and JSON without a hole."""
    found = as_hef(hef_file(KINDS[kind]()))

    assert found.digest_ok is checked(found.container_version, True)
    for group_ in found.to_json()["groups"]:
        assert group_["inputs"] and group_["outputs"]
        for stream in group_["inputs"] + group_["outputs"]:
            assert stream.keys() == {"name", "original_names", "shape", "dtype", "order", "scale", "zero_point"}


# --- the chip ---------------------------------------------------------------------------------------------------------

# hw_arch -> name, as hef-format.md has it
ARCHS = {
    **dict.fromkeys((0, 1, 2, 101, 102), "hailo8"),
    100: "hailo8_a0",
    3: "hailo8l",
    **dict.fromkeys((103, 104, 105), "hailo15h"),
    4: "hailo15m",
    5: "hailo10h",
    **dict.fromkeys((6, 106), "hailo15l"),
    108: "mars",
}


@pytest.mark.parametrize("number", range(110))
def test_architectures(as_hef: AsHef, number: int) -> None:
    """All numbers that HailoRT 4.23 maps, and none besides."""
    part = group(yolo_layers(), YOLO_ORDER)
    data = hef_file(hef(field(7, layout(part, 0)) if number in (3, 4) else part, arch=number))
    if number in ARCHS:
        assert as_hef(data).arch == ARCHS[number]
        return
    with pytest.raises(ModelError, match=f"unknown chip, number {number}"):
        as_hef(data)


# --- extensions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [*range(7), *range(9, 13), *range(14, 25), *range(26, 33)])
def test_supported_extensions(as_hef: AsHef, number: int) -> None:
    """0 to 32 but for two; net flow and scales per feature change what is read, and have tests of their own."""
    assert names(as_hef(yolo(extensions=(PERIPH, number)))) == list(YOLO_ORDER)


@pytest.mark.parametrize("number", [7, 8, 33, 99, 999, 1000, 0xFFFF, 0xFFFFFFFF])
def test_unsupported_extensions(as_hef: AsHef, number: int) -> None:
    """Refused by name."""
    with pytest.raises(ModelError, match=f"EXTENSION_{number}"):
        as_hef(yolo(extensions=(PERIPH, number)))


@pytest.mark.parametrize("number", [7, 33, 0xFFFF])
def test_optional_extensions_are_never_refused(as_hef: AsHef, number: int) -> None:
    """What a runtime need not know."""
    assert names(as_hef(hef_file(yolo_hef() + field(6, field(1, number))))) == list(YOLO_ORDER)


def test_a_nameless_unknown_extension(as_hef: AsHef) -> None:
    """Its number has to do."""
    with pytest.raises(ModelError, match="number 77"):
        as_hef(hef_file(yolo_hef() + field(5, field(1, 77))))


OUTDATED = [
    ("no extension", {"extensions": ()}),
    ("another one", {"extensions": (1,)}),
    ("version 0", {"header_version": 0}),
]


@pytest.mark.parametrize("kwargs", [row[1] for row in OUTDATED], ids=[row[0] for row in OUTDATED])
def test_files_from_before_the_extensions_are_refused(as_hef: AsHef, kwargs: dict[str, int | Sequence[int]]) -> None:
    """Without `periph_calculation_in_hailort`, which needs a header version of at least 1."""
    with pytest.raises(ModelError, match="outdated"):
        as_hef(yolo(**kwargs))


# --- groups and their names -------------------------------------------------------------------------------------------


def test_the_last_group_is_the_default(as_hef: AsHef) -> None:
    """HailoRT takes groups from the end of the file."""
    groups = [group(yolo_layers(classes=i), YOLO_ORDER, name=f"net{i}") for i in (1, 2, 3)]

    found = as_hef(hef_file(hef(*groups)))

    assert [(g.name, g.outputs[1].shape[2]) for g in found.groups] == [("net3", 3), ("net2", 2), ("net1", 1)]


def test_contexts_are_counted_and_read_in_order(as_hef: AsHef) -> None:
    """Inputs keep the file's order, context by context."""
    second = edge(info("net/second", 8, 8, 3), output=False)
    message = core([input_layer(), edge(info("net/out", 8, 8, 2))]) + field(3, context(second)) + field(4, "net/out")

    (found,) = as_hef(hef_file(hef(message))).groups

    assert (found.contexts, [stream.name for stream in found.inputs]) == (2, ["net/input", "net/second"])


@pytest.mark.parametrize("value, expected", [(309.5, 309.5), (0, None), (-1, None), (math.inf, None), (math.nan, None)])
def test_the_compilers_frame_rate(as_hef: AsHef, value: float, expected: float | None) -> None:
    """`bottleneck_fps`, field 4 of the metadata; for several contexts it means nothing."""
    parts = field(3, context(input_layer(), edge(info("net/out", 8, 8, 2)))), field(4, "net/out")
    message = field(1, field(1, "net") + f64(4, value)) + b"".join(parts)

    assert as_hef(hef_file(hef(message))).groups[0].fps == expected
    assert as_hef(hef_file(hef(message + field(3, b"")))).groups[0].fps is None


WRONG_GROUPS = [
    ("nothing in it", b"", "outdated"),
    ("no group", hef(), "no network"),
    ("no input", hef(group(yolo_layers()[1:], YOLO_ORDER)), "no input"),
    ("no output", hef(group([input_layer()], ["x"])), "no output"),
    ("output without a place", hef(group(yolo_layers(), YOLO_ORDER[:-1])), "net/cls32"),
    ("no order at all", hef(group(yolo_layers(), [])), "order of its outputs is missing"),
    ("two layers of a name", hef(group([input_layer(), *yolo_layers()], YOLO_ORDER)), "two layers"),
    ("two layers of a name in two contexts", hef(
        group(yolo_layers(), YOLO_ORDER) + field(3, context(input_layer()))), "two layers"),
    ("two groups of a name", hef(*[group(yolo_layers(), YOLO_ORDER)] * 2), "same name"),
    ("group name of 128 bytes", hef(group(yolo_layers(), YOLO_ORDER, name="n" * 128)), "longer than 127"),
    ("8L without layouts", hef(group(yolo_layers(), YOLO_ORDER), arch=HAILO8L), "layout"),
    ("8L without layouts, net flow", hef(
        net_flow_group(yolo_layers(), [], [], YOLO_ORDER), arch=HAILO8L, extensions=FLOW), "layout"),
    ("core op of another name", hef(
        net_flow_group(yolo_layers(), [], [], YOLO_ORDER) + field(1, field(1, "other")), extensions=FLOW), "the name"),
    ("no part for the chip", hef(group(yolo_layers(), YOLO_ORDER), extensions=FLOW), "no part for the chip"),
]  # fmt: skip


@pytest.mark.parametrize(("proto", "words"), [row[1:] for row in WRONG_GROUPS], ids=[row[0] for row in WRONG_GROUPS])
def test_wrong_groups_are_refused(as_hef: AsHef, proto: bytes, words: str) -> None:
    """In one sentence that says what is wrong."""
    with pytest.raises(ModelError, match=words) as caught:
        as_hef(hef_file(proto))

    assert "\n" not in str(caught.value)


def test_the_first_core_op_is_the_chip_s_part(as_hef: AsHef) -> None:
    """A second one is not looked at."""
    other = field(8, field(4, core([input_layer(), edge(info("net/other", 8, 8, 4))])))

    found = as_hef(hef_file(hef(net_flow_group(yolo_layers(), [], [], YOLO_ORDER) + other, extensions=FLOW)))

    assert names(found) == list(YOLO_ORDER)


def test_field_10_is_not_the_name(as_hef: AsHef) -> None:
    """`network_group_name` is there, but HailoRT 4.23 does not read it."""
    found = as_hef(hef_file(hef(group(yolo_layers(), YOLO_ORDER) + field(10, "other"))))

    assert found.groups[0].name == "net"


# --- the order of outputs ---------------------------------------------------------------------------------------------

REVERSE = YOLO_ORDER[::-1]


def sorted_as(order: Sequence[str], number: int) -> bytes:
    """A list of names as field `number`."""
    return b"".join(field(number, name) for name in order)


def in_last_context() -> bytes:
    """Very old files."""
    return core(yolo_layers()) + field(3, field(3, sorted_as(REVERSE, 5)))


def group_before_context() -> bytes:
    """The group's list wins over the last context's."""
    return group(yolo_layers(), REVERSE) + field(3, field(3, sorted_as(YOLO_ORDER, 5)))


def fused_before_group() -> bytes:
    """With fused layers there is a list of its own."""
    fused = field(5, field(1, 1) + sorted_as(REVERSE, 2))
    return group(yolo_layers(), YOLO_ORDER) + fused


def fused_not_used() -> bytes:
    """The list of fused layers does not count where there are none."""
    return group(yolo_layers(), REVERSE) + field(5, sorted_as(YOLO_ORDER, 2))


@pytest.mark.parametrize("build", [in_last_context, group_before_context, fused_before_group, fused_not_used])
def test_where_the_order_of_outputs_stands(as_hef: AsHef, build: Callable[[], bytes]) -> None:
    """The list of names decides, not the place in the file."""
    assert names(as_hef(hef_file(hef(build())))) == list(REVERSE)


def test_order_of_a_partial_group_without_net_flow(as_hef: AsHef) -> None:
    """The first layout's list, before the group's own."""
    part = field(7, layout(group(yolo_layers(), REVERSE), 0))

    found = as_hef(hef_file(hef(part + sorted_as(YOLO_ORDER, 4), arch=HAILO8L)))

    assert names(found) == list(REVERSE)


def test_order_with_net_flow_is_the_group_s(as_hef: AsHef) -> None:
    """A legacy layout's list does not count then."""
    legacy = field(7, layout(field(1, field(1, "net")) + sorted_as(REVERSE, 4), 0))
    message = net_flow_group(yolo_layers(), [], [], YOLO_ORDER) + legacy

    assert names(as_hef(hef_file(hef(message, extensions=FLOW)))) == list(YOLO_ORDER)


def test_a_single_output_needs_no_place(as_hef: AsHef) -> None:
    """HailoRT sorts, and one thing is always sorted; but some list must be there."""
    layers = [input_layer(), edge(info("net/out", 8, 8, 2))]

    assert names(as_hef(hef_file(hef(group(layers, ["net/other"]))))) == ["net/out"]


def test_a_name_that_stands_twice_counts_where_it_is_first(as_hef: AsHef) -> None:
    """More names than outputs do no harm."""
    order = [*REVERSE, *YOLO_ORDER, "net/none"]

    assert names(as_hef(hef_file(hef(group(yolo_layers(), order))))) == list(REVERSE)


# --- layouts for a part of the clusters -------------------------------------------------------------------------------


@pytest.mark.parametrize("net_flow", [False, True])
@pytest.mark.parametrize(("bitmaps", "classes"), [((3, 1), 2), ((1, 3), 7), ((0, 3), 7), ((5, 5), 2)])
def test_hailo8l_reads_the_layout_of_the_lowest_bitmap(
    as_hef: AsHef, net_flow: bool, bitmaps: tuple[int, int], classes: int
) -> None:
    """In partial network groups, or in partial core ops; of equal bitmaps the last."""
    found = as_hef(hef_file(partial_hef(net_flow, bitmaps=bitmaps)))

    assert (found.arch, found.groups[0].name, found.groups[0].contexts) == ("hailo8l", "net", 1)
    assert found.groups[0].outputs[1].shape == (8, 8, classes)


@pytest.mark.parametrize("net_flow", [False, True])
def test_hailo15m_has_layouts_as_well(as_hef: AsHef, net_flow: bool) -> None:
    """The other chip of which some clusters may be missing."""
    proto = partial_hef(net_flow).replace(field(1, field(1, HAILO8L) + field(3, "3.33.1")), b"", 1)
    proto += field(1, field(1, 4))  # merged into the header

    found = as_hef(hef_file(proto))

    assert (found.arch, found.groups[0].outputs[1].shape) == ("hailo15m", (8, 8, 2))


def test_nms_on_a_hailo8l(as_hef: AsHef) -> None:
    """Partial core ops with an operation behind them."""
    (found,) = as_hef(hef_file(partial_hef(True, nms=True))).groups

    assert found.nms is not None and (found.nms.kind, found.nms.strides) == ("yolov8", (8, 16, 32))
    assert [(s.name, s.shape, s.order) for s in found.outputs] == [("net/nms", (2, 5, 10), "HAILO_NMS_BY_CLASS")]


def test_other_chips_do_not_look_at_layouts(as_hef: AsHef) -> None:
    """But for the name."""
    legacy = field(7, layout(field(1, field(1, "net")), 1))

    assert names(as_hef(hef_file(hef(group(yolo_layers(), YOLO_ORDER) + legacy)))) == list(YOLO_ORDER)


def test_every_layout_must_be_readable(as_hef: AsHef) -> None:
    """HailoRT reads all of them, and so refuses what is wrong in one that it does not tell of."""
    good, bad = group(yolo_layers(), YOLO_ORDER), group([edge(info("net/a", 8, 8, 3, fmt=99))], ["net/a"])
    parts = field(7, layout(good, 1)) + field(7, layout(bad, 3))

    with pytest.raises(ModelError, match="format 99"):
        as_hef(hef_file(hef(parts, arch=HAILO8L)))


# --- several networks, and other things inside ------------------------------------------------------------------------


@pytest.mark.parametrize(("index", "fits"), [(0, True), (1, True), (2, False), (257, True)])
def test_layers_of_several_networks(as_hef: AsHef, index: int, fits: bool) -> None:
    """With the optional extension each layer belongs to one of the networks that the group names; 8 bits count."""
    out = edge(info("net/out", 8, 8, 2)) + field(6, index)
    message = group([input_layer(), out], ["net/out"]) + field(6, "left") + field(6, "right")
    data = hef_file(hef(message) + field(6, field(1, 8)))

    if fits:
        assert names(as_hef(data)) == ["net/out"]
        return
    with pytest.raises(ModelError, match="network 2, but there are 2"):
        as_hef(data)


def test_networks_do_not_matter_without_the_extension(as_hef: AsHef) -> None:
    """Then there is one."""
    out = edge(info("net/out", 8, 8, 2)) + field(6, 9)

    assert names(as_hef(hef_file(hef(group([input_layer(), out], ["net/out"]))))) == ["net/out"]


def test_a_language_model(as_hef: AsHef) -> None:
    """Its groups, and what else the file carries."""
    found = as_hef(hef_file(genai_hef()))

    assert [g.name for g in found.groups] == ["llm__prefill", "llm__tbt"]
    assert found.to_json()["external_resources"] == ["tokenizer.json"]
