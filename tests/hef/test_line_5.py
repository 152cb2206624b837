"""HEFs of today: those for HailoRT 5 (Hailo-10H and 15), and what was confirmed with the real library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from hefkit.chips import check_runtime
from hefkit.errors import DeviceError, ModelError
from hefkit.hef.file import read_hef
from hefkit.hef.match import match
from hefkit.hef.words import describe
from hefkit.spec_file import spec_beside
from tests.conftest import AsHef
from tests.helpers.chip_hef import write_hef
from tests.helpers.heads import make_head, make_spec
from tests.helpers.hef_kinds import fused_hef, layout, per_feature_hef
from tests.helpers.tiny_hef import (
    CHECKS_XXH3,
    HAILO8L,
    PERIPH,
    YOLO_ORDER,
    checksum,
    edge,
    field,
    group,
    hef,
    hef_file,
    info,
    input_layer,
    yolo_hef,
    yolo_layers,
)

TEN_H = 103  # HAILO1XH: the 15H and the 10H
needs_xxhash = pytest.mark.skipif(not CHECKS_XXH3, reason="the optional package xxhash computes this checksum")


def ten_h(extensions: Sequence[int] = (PERIPH,)) -> bytes:
    """The toy YOLO for the 10H and the 15H."""
    return hef(group(yolo_layers(), YOLO_ORDER), arch=TEN_H, extensions=extensions)


def test_one_number_means_two_chips(as_hef: AsHef) -> None:
    """The words name both; HailoRT 4 drives neither, and the message says what does."""
    found = as_hef(hef_file(ten_h()))

    assert found.arch == "hailo15h"
    assert describe(found)[0] == (
        "this HEF is for a Hailo-10H or 15H, which have the same number in a HEF; needs HailoRT 5 (on a Raspberry Pi: "
        "sudo apt install hailo-h10-all)"
    )
    with pytest.raises(DeviceError, match="hailo-h10-all"):
        check_runtime(Path("m.hef"), found.arch, "4.23.0")
    check_runtime(Path("m.hef"), found.arch, "5.2.0")


def test_the_real_file(shared: Path) -> None:
    """../shared/field: compiled with --hw-arch hailo10h."""
    assert (
        "a Hailo-10H or 15H, which have the same number in a HEF"
        in describe(read_hef(shared / "field" / "05-hef-10h-words" / "ten_h.hef"))[0]
    )


@pytest.mark.parametrize("number", [33, 34, 35])
def test_extensions_of_hailort_5(as_hef: AsHef, number: int) -> None:
    """Known for its chips; HailoRT 4.23, which drives the others, refuses them."""
    assert len(as_hef(hef_file(ten_h((PERIPH, number)))).groups[0].outputs) == 6
    with pytest.raises(ModelError, match=f"HailoRT 4.23 does not have: EXTENSION_{number}"):
        as_hef(hef_file(hef(group(yolo_layers(), YOLO_ORDER), extensions=(PERIPH, number))))
    with pytest.raises(ModelError, match=r"HailoRT 5.2 does not have: EXTENSION_36"):
        as_hef(hef_file(ten_h((PERIPH, 36))))


@needs_xxhash
def test_the_checksum_of_the_message_alone(as_hef: AsHef) -> None:
    """Where the header has one, only the message is compared; a damaged message is still seen."""
    proto = ten_h()
    own = checksum(3, proto)

    assert as_hef(hef_file(proto, 3, ccws=b"weights", digest=bytes(8), proto_digest=own)).digest_ok is True
    assert as_hef(hef_file(proto, 3, ccws=b"weights", proto_digest=own[::-1])).digest_ok is False
    assert as_hef(hef_file(proto, 3, ccws=b"weights")).digest_ok is True
    assert as_hef(hef_file(proto, 3, ccws=b"weights", digest=b"12345678")).digest_ok is False


@pytest.mark.parametrize(
    "given, scale, zero_point",
    [
        ({"scales": (0.5, 0.25, 2)}, (0.5, 0.25, 2.0), (7.0, 7.0, 7.0)),
        ({"zero_points": (1, 2, 3)}, (0.125, 0.125, 0.125), (1.0, 2.0, 3.0)),
    ],
    ids=["scales alone", "zero points alone"],
)
def test_one_of_the_lists_alone(
    as_hef: AsHef, given: dict[str, Sequence[float]], scale: tuple[float, ...], zero_point: tuple[float, ...]
) -> None:
    """The one number of the layer stands for the other."""
    out = info("net/out", 8, 8, 3, scale=0.125, zero_point=7, **given)  # type: ignore[arg-type]
    [found] = as_hef(hef_file(per_feature_hef(out))).groups[0].outputs

    assert (found.scale, found.zero_point) == (scale, zero_point)


def test_groups_in_the_order_of_the_file(as_hef: AsHef) -> None:
    """HailoRT 5.2 no longer takes them from the end."""
    groups = [group([input_layer(), edge(info("net/out", 8, 8, 2))], ["net/out"], name=name) for name in ("a", "b")]

    assert [g.name for g in as_hef(hef_file(hef(*groups, arch=TEN_H))).groups] == ["a", "b"]
    assert [g.name for g in as_hef(hef_file(hef(*groups))).groups] == ["b", "a"]


def test_a_fused_nms_without_an_order(as_hef: AsHef) -> None:
    """It is the only output, so nothing has to be sorted."""
    found = as_hef(hef_file(fused_hef(order=())))

    assert [(s.name, s.shape) for s in found.groups[0].outputs] == [("net/whole", (160, 5, 20))]


def test_names_of_the_first_layout(as_hef: AsHef) -> None:
    """HailoRT shows the layout of the lowest bitmap with the ONNX names of the first in the file."""
    first = group(yolo_layers(), YOLO_ORDER).replace(b"/cv2.", b"/box.").replace(b"/cv3.", b"/cls.")
    parts = field(7, layout(first, 3)) + field(7, layout(group(yolo_layers(), YOLO_ORDER), 1))
    outputs = as_hef(hef_file(hef(parts, arch=HAILO8L))).groups[0].outputs

    assert [s.original_names for s in outputs[:2]] == [("/box.0/Conv",), ("/cls.0/Conv",)]


# --- another program's JSON beside the file --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "foreign",
    [{"labels": ["drone"]}, ["drone"], {}, {"task": "detect", "format": "hailo"}, 3],
    ids=["labels", "a list", "empty", "another format", "a number"],
)
def test_a_foreign_json_is_ignored_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, foreign: object
) -> None:
    """NAME.json is a common name: labels, metadata. The HEF runs as without it."""

    (tmp_path / "m.hef").write_bytes(hef_file(yolo_hef()))
    (tmp_path / "m.json").write_text(json.dumps(foreign))

    assert spec_beside(tmp_path / "m.hef") is None
    assert f"{tmp_path / 'm.json'} is not a spec of hefkit; it is ignored" in caplog.text
    assert len(match(read_hef(tmp_path / "m.hef")).spec.head.outputs) == 6


@pytest.mark.parametrize("text", ['{"format": 2}', '{"tool": "hefkit 9"}', '{"head": {}}', '{"labels": [', ""])
def test_a_spec_that_cannot_be_used_is_not_foreign(tmp_path: Path, text: str) -> None:
    """Of a newer hefkit, damaged or cut off: running without it would be a guess."""
    (tmp_path / "m.hef").write_bytes(hef_file(yolo_hef()))
    (tmp_path / "m.json").write_text(text)

    with pytest.raises(ModelError, match=r"m\.json"):
        match(read_hef(tmp_path / "m.hef"))


def test_our_own_spec_is_read(tmp_path: Path) -> None:
    """Beside its HEF."""
    spec = make_spec(make_head(num_classes=2), (64, 64))
    write_hef(tmp_path / "m.hef", spec, None, beside=True)

    assert spec_beside(tmp_path / "m.hef") is not None
