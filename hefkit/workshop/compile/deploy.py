"""What goes to the Pi, as lines that can be pasted."""

from __future__ import annotations

import shlex
from pathlib import Path

HOST = "pi@raspberrypi.local"  # a placeholder; the default name of a Raspberry Pi
SCRIPTS = ("hailo_inference.py", "working_hailo_detector.py", "validate_hef.py")


def copy_lines(model: Path, project: Path, hailort: str | None) -> list[str]:
    """The `scp` lines for a HEF with its spec, and for the scripts the first time.

    Args:
        model: NAME.hef; NAME.json lies beside it.
        project: the folder of the scripts and of `hefkit`.
        hailort: the version that belongs to the compiler, if known.
    """
    scripts = [str(project / name) for name in SCRIPTS if (project / name).is_file()]
    needs = f"; the Pi needs HailoRT {hailort}" if hailort else ""
    return [
        f"copy to the Pi (put its address for {HOST}){needs}:",
        f"  scp {_quoted(model, model.with_suffix('.json'))} {HOST}:hefkit/",
        "the first time, before that:",
        f"  ssh {HOST} mkdir -p hefkit/hefkit",
        f"  scp {_quoted(*scripts)} {HOST}:hefkit/",
        f"  scp {_quoted(project / 'hefkit')}/*.py {HOST}:hefkit/hefkit/",
        f"then, on the Pi: python3 hailo_inference.py {_quoted(model.name)} PHOTOS",
    ]


def _quoted(*paths: object) -> str:
    return " ".join(shlex.quote(str(path)) for path in paths)
