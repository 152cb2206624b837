"""The check of a cut network against the whole ONNX, made once for each network of a test process.

It is a fifth of a run of compile_to_hef.py on a toy. The whole roads and its own tests make it each time.
"""

from __future__ import annotations

from typing import Any

import pytest

from hefkit.workshop.compile import run
from hefkit.workshop.heads.discover import HeadLayout
from hefkit.workshop.heads.proof import Proof, prove
from hefkit.workshop.network.file import OnnxFile

_passed: dict[tuple[Any, ...], Proof] = {}


def prove_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs in this process remember the checks that passed."""
    monkeypatch.setattr(run, "prove", _remembered)


def _remembered(file: OnnxFile, layout: HeadLayout) -> Proof:
    key = file.sha256, file.size, layout
    if key not in _passed:
        _passed[key] = prove(file, layout)
    return _passed[key]
