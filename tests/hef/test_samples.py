"""The sample files, against what Hailo's own tool printed of them: `hailortcli parse-hef` of HailoRT 4.23."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hefkit.hef.file import Hef, read_hef
from hefkit.hef.groups import Group
from hefkit.hef.hostops import Nms
from hefkit.hef.streams import VStream
from tests.conftest import Finished
from tests.helpers.tiny_hef import CHECKS_XXH3, checked

GOOD = ["y8_v2", "y8_v3", "y8_8l", "y8_nms"]
BAD = ["bad_empty", "bad_text", "bad_trunc"]
WRONG_DIGEST = "bad_flip"
NMS_NAMES = {"yolov8": "YOLOV8-Post-Process"}


def printed(hef: Hef) -> Iterator[str]:
    """What `parse-hef` prints without --parse-streams, from what we read."""
    yield f"Architecture HEF was compiled for: {hef.arch.upper()}"
    for group in hef.groups:
        contexts = "Single Context" if group.contexts == 1 else f"Multi Context - Number of contexts: {group.contexts}"
        yield f"Network group name: {group.name}, {contexts}"
        yield f"    Network name: {group.name}/{group.name}"
        yield "        VStream infos:"
        yield from (f"            {line}" for line in printed_streams(group))


def printed_streams(group: Group) -> Iterator[str]:
    """Inputs, outputs, and the operation on the host."""
    yield from (f"Input  {stream.name} {printed_format(stream)}" for stream in group.inputs)
    yield from (f"Output {stream.name} {printed_format(stream)}" for stream in group.outputs)
    if group.nms is not None:
        yield "Operation:"
        yield from (f"    {line}" for line in printed_nms(group.nms))


def printed_format(stream: VStream) -> str:
    """Type, order and shape of a vstream."""
    if not stream.order.startswith("HAILO_NMS"):
        return f"{stream.dtype.upper()}, {stream.order}({'x'.join(map(str, stream.shape))})"
    classes, _, most = stream.shape
    return (
        f"{stream.dtype.upper()}, {stream.order.replace('_', ' ')}(number of classes: {classes}, "
        f"maximum bounding boxes per class: {most}, maximum frame size: {classes * (4 + most * 20)})"
    )


def printed_nms(nms: Nms) -> Iterator[str]:
    """The lines of an operation."""
    assert nms.image_size is not None
    yield f"Op {nms.kind.upper()}"
    yield f"Name: {NMS_NAMES[nms.kind]}"
    yield f"Score threshold: {nms.score_threshold:.3f}"
    yield f"IoU threshold: {nms.iou_threshold:.2f}"
    yield f"Classes: {nms.classes}"
    yield f"Max bboxes per class: {nms.max_per_class}"
    yield f"Image height: {nms.image_size[0]}"
    yield f"Image width: {nms.image_size[1]}"


def without_streams(text: str) -> list[str]:
    """The expected lines but for the streams as the chip has them, which we do not read, and the exit status."""
    before, _, rest = text.partition("        Stream infos:\n")
    streams, found, after = rest.partition("        VStream infos:\n")
    assert streams and found
    return [line for line in (before + found + after).splitlines() if not line.startswith("exit ")]


@pytest.mark.parametrize("name", GOOD)
def test_good_samples_read_as_hailo_reads_them(shared: Path, name: str) -> None:
    """Line by line: architecture, group, contexts, vstreams and NMS."""
    text = (shared / f"models/hef/{name}.expected.txt").read_text()

    found = read_hef(shared / f"models/hef/{name}.hef")

    assert list(printed(found)) == without_streams(text)
    assert (found.digest_ok, found.sdk) == (checked(found.container_version, True), "3.31.0")


def test_compiled_files_have_the_compilers_frame_rate(shared: Path) -> None:
    """Field 4, a double, stands in the bytes of real HEFs; the same network is slower in 16 bit."""
    rates = []
    for name in ("relu_8bit", "relu_16bit"):
        path = shared / "hailo" / name / "model.hef"
        rate = read_hef(path).groups[0].fps
        assert rate is not None and b"\x21" + struct.pack("<d", rate) in path.read_bytes()
        rates.append(round(rate))

    assert rates == [132714, 25818]


def test_flipped_sample_is_readable_with_a_wrong_digest(shared: Path) -> None:
    """One digit of an original name was changed: the rest can be shown."""
    found = read_hef(shared / f"models/hef/{WRONG_DIGEST}.hef")

    assert found.digest_ok is checked(found.container_version, False)
    assert "/model.23/cv2.1/cv2.1.2/Conv" in found.groups[0].outputs[2].original_names


@pytest.mark.parametrize("name", [*GOOD, *BAD, WRONG_DIGEST])
def test_the_script_agrees_about_every_sample(shared: Path, run_script: Callable[..., Finished], name: str) -> None:
    """Exit 0 where Hailo's tool has 0, else 4; of what is refused only a wrong digest prints JSON.

    Without the package xxhash the wrong digest is not seen.
    """
    done = run_script("validate_hef.py", shared / f"models/hef/{name}.hef", "--json")

    accepted = "exit 0" in (shared / f"models/hef/{name}.expected.txt").read_text().splitlines()
    unseen = name == WRONG_DIGEST and not CHECKS_XXH3
    assert (done.code, accepted) == (0 if name in GOOD or unseen else 4, name in GOOD)
    assert len(done.out.splitlines()) == (0 if name in BAD else 1)
    if name not in BAD:
        assert done.json["digest_ok"] is checked(done.json["container_version"], name in GOOD)
    assert len(done.errors) == (0 if name in GOOD or unseen else 1)
