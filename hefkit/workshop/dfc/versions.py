"""Which Dataflow Compiler (DFC) compiles for which chip, on which Python, for which HailoRT.

The source is the Model Zoo's release notes and badges (tags v2.14 to v2.18 and v5.0 to v5.2); for 3.34, 5.3 and 5.4
logs and documents of users. DFC 3.x with HailoRT 4.x makes HEFs for the Hailo-8 and 8L, DFC 5.x with HailoRT 5.x for
the Hailo-10H and 15. DFC 3.x up to 3.31 did both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hefkit.chips import LINE_3, LINE_5, TARGETS, is_line_3
from hefkit.errors import ToolchainError


@dataclass(frozen=True)
class Release:
    """One release of the compiler."""

    version: tuple[int, int]
    archs: tuple[str, ...]
    pythons: tuple[tuple[int, int], tuple[int, int]]  # first and last
    hailort: str  # the version that runs its HEFs


OLD, BOTH, NEW = ((3, 8), (3, 10)), ((3, 8), (3, 12)), ((3, 10), (3, 12))
RELEASES = (
    Release((3, 30), TARGETS, OLD, "4.20"),
    Release((3, 31), TARGETS, OLD, "4.21"),
    Release((3, 32), LINE_3, BOTH, "4.22"),
    Release((3, 33), LINE_3, NEW, "4.23"),
    Release((3, 34), LINE_3, NEW, "4.24"),
    Release((5, 0), LINE_5, OLD, "5.0"),
    Release((5, 1), tuple(name for name in LINE_5 if name != "hailo15l"), NEW, "5.1"),
    Release((5, 2), LINE_5, NEW, "5.2"),
    Release((5, 3), LINE_5, NEW, "5.3"),
    Release((5, 4), LINE_5, NEW, "5.4"),
)
SUGGESTED = {3: "3.34", 5: "5.4"}


def parse_version(text: str | None) -> tuple[int, int] | None:
    """`3.33.1` -> (3, 33); None for anything else."""
    match = re.match(r"(\d{1,4})\.(\d{1,4})", text or "")
    return None if match is None else (int(match[1]), int(match[2]))


def release_of(version: str | None) -> tuple[Release | None, bool]:
    """(the release whose facts a version gets, whether it is that very version).

    An unknown version is treated as the last known one before it with the same first number, or as the first one:
    3.35 -> (3.34, False), 3.1 -> (3.30, False), 4.0 -> (None, False).
    """
    parsed = parse_version(version)
    if parsed is None:
        return None, False
    line = [r for r in RELEASES if r.version[0] == parsed[0]]
    if not line:
        return None, False
    best = [r for r in line if r.version <= parsed]
    return (best[-1], best[-1].version == parsed) if best else (line[0], False)


def check_arch(version: str | None, arch: str) -> list[str]:
    """Refuse (exit 5) an SDK that does not compile for `arch`; a warning where its version is not known."""
    release, _ = release_of(version)
    if release is None:
        return [f"hefkit does not know the SDK version {version or '(none)'}; it may not compile for {arch}"]
    if arch in release.archs:
        return []
    major = 3 if is_line_3(arch) else 5
    raise ToolchainError(
        f"version {version} of Hailo's SDK compiles for {', '.join(release.archs)}, and not for {arch}; expected "
        f"version {major}.x, such as {SUGGESTED[major]}, for that chip; install it in its own environment and "
        "name its Python with --sdk-python, or choose another --hw-arch"
    )


def check_python(version: str | None, python: tuple[int, int], executable: str) -> list[str]:
    """Refuse (exit 5) a Python on which a known SDK version does not run; a warning for other versions."""
    release, exact = release_of(version)
    if release is None or release.pythons[0] <= python <= release.pythons[1]:
        return []
    first, last = (".".join(map(str, p)) for p in release.pythons)
    text = (
        f"{executable} is Python {'.'.join(map(str, python))}, and version {version} of Hailo's SDK runs on {first} to "
        f"{last}; expected one of these; make an environment with it, for example python{last} -m venv hailo, install "
        "the SDK there and name its Python with --sdk-python"
    )
    if not exact:
        return [text]
    raise ToolchainError(text)


def hailort_for(version: str | None) -> str | None:
    """The HailoRT version that runs HEFs of this SDK, where that is known."""
    release, exact = release_of(version)
    return release.hailort if release is not None and exact else None
