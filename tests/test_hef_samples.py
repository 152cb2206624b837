"""The sample files, against what Hailo's own tool printed of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hefkit.errors import ModelError
from hefkit.hef import read_hef

LINE = re.compile(r"(Input|Output) +(\S+) (\w+), ([\w ]+)\((.*)\)")


def expected_streams(text: str) -> list[tuple[str, str, str, str, tuple[int, ...]]]:
    """(direction, name, dtype, order, shape) of every vstream that `hailortcli parse-hef` printed."""
    found = []
    for line in text.partition("VStream infos:")[2].splitlines():
        if match := LINE.match(line.strip()):
            direction, name, dtype, order, shape = match.groups()
            numbers = [int(n) for n in re.findall(r"\d+", shape)]
            nms = order.startswith("HAILO NMS")
            size = (numbers[0], 5, numbers[1]) if nms else tuple(numbers)
            found.append((direction, name, dtype.lower(), order.replace(" ", "_"), size))
    return found


@pytest.mark.parametrize("name", ["y8_v2", "y8_v3", "y8_8l", "y8_nms"])
def test_good_samples_read_as_hailo_reads_them(shared: Path, name: str) -> None:
    """Architecture, group, contexts, vstreams and NMS."""
    text = (shared / f"models/hef/{name}.expected.txt").read_text()
    found = read_hef(shared / f"models/hef/{name}.hef")
    (only,) = found.groups

    assert text.splitlines()[0] == f"Architecture HEF was compiled for: {found.arch.upper()}"
    assert text.splitlines()[1] == f"Network group name: {only.name}, Single Context" and only.contexts == 1
    streams = [("Input", s) for s in only.inputs] + [("Output", s) for s in only.outputs]
    assert [(d, s.name, s.dtype, s.order, s.shape) for d, s in streams] == expected_streams(text)
    assert found.digest_ok and found.sdk == "3.31.0"
    if "Operation" not in text:
        assert only.nms is None
        return
    nms = only.nms
    assert nms is not None and nms.image_size is not None
    for line in (
        f"Op {nms.kind.upper()}",
        f"Score threshold: {nms.score_threshold:.3f}",
        f"IoU threshold: {nms.iou_threshold:.2f}",
        f"Classes: {nms.classes}",
        f"Max bboxes per class: {nms.max_per_class}",
        f"Image height: {nms.image_size[0]}",
        f"Image width: {nms.image_size[1]}",
    ):
        assert line in text


@pytest.mark.parametrize("name", ["bad_empty", "bad_text", "bad_trunc"])
def test_bad_samples_are_refused(shared: Path, name: str) -> None:
    """What Hailo's tool does not open, we do not."""
    with pytest.raises(ModelError):
        read_hef(shared / f"models/hef/{name}.hef")


def test_flipped_sample_is_readable_with_a_wrong_digest(shared: Path) -> None:
    """One digit of an original name was changed: the rest can be shown."""
    found = read_hef(shared / "models/hef/bad_flip.hef")

    assert not found.digest_ok
    assert "/model.23/cv2.1/cv2.1.2/Conv" in found.groups[0].outputs[2].original_names
