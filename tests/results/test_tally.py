"""What a run did, in numbers."""

from __future__ import annotations

from hefkit.results.run import Tally


def test_tally_medians_and_classes() -> None:
    """Stage times are medians in milliseconds; the latency is the median of sums, not the sum of medians."""
    tally = Tally()
    for infer, write in ((0.010, 0.003), (0.020, 0.001), (0.030, 0.002)):
        tally.add([1, 1, 0], read=0.001, preprocess=0.0, infer=infer, decode=0.0, write=write)

    assert tally.stage_ms() == {"read": 1.0, "preprocess": 0.0, "infer": 20.0, "decode": 0.0, "write": 2.0}
    assert tally.latency_ms() == 22.0  # sums 14, 22, 33
    assert [line.split() for line in tally.class_lines({0: "a", 1: "b\n\x1b"})] == [["6", "b", r"\x1b"], ["3", "a"]]
    assert tally.class_lines({0: "a", 1: "b"}, most=1)[1].split() == ["3", "in", "1", "more", "classes"]
