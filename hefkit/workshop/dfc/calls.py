"""Compare the SDK's calls, as hefkit makes them, with those of the installed SDK: what `--check` prints.

The expected signatures are from published code and from introspection (docs/sdk-assumptions.md). A difference is only a
warning; it shows where to look if a call fails later.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hefkit.text import one_line
from hefkit.workshop.dfc.client import Dfc
from hefkit.workshop.dfc.ready import Ready

log = logging.getLogger("hefkit")


@dataclass(frozen=True)
class Call:
    """One name of the SDK that hefkit uses."""

    name: str
    expected: str
    keywords: tuple[str, ...] = ()  # those that hefkit passes by name
    optional: bool = False  # hefkit also works without it


CALLS = (
    Call("ClientRunner", "(hw_arch=None, har=None)", ("hw_arch", "har")),
    Call(
        "ClientRunner.translate_onnx_model",
        "(self, model, net_name, start_node_names=None, end_node_names=None, ...)",
        ("end_node_names",),
    ),
    Call("ClientRunner.get_hn_model", "(self)"),
    Call("ClientRunner.get_hn_dict", "(self)"),
    Call("ClientRunner.load_model_script", "(self, model_script, append=False)"),
    Call("ClientRunner.optimize_full_precision", "(self, calib_data=None, ...)", ("calib_data",), optional=True),
    Call("ClientRunner.optimize", "(self, calib_data, data_type=auto, *, work_dir=None, checkpoint=..., memento=None)"),
    Call("ClientRunner.infer_context", "(self, inference_context, device_ids=None, ...)"),
    Call("ClientRunner.infer", "(self, context, dataset, ..., batch_size=...)", ("context", "dataset", "batch_size")),
    Call("ClientRunner.compile", "(self)"),
    Call("ClientRunner.save_har", "(self, har_path, ...)"),
    Call("InferenceContext.SDK_FP_OPTIMIZED", "a member", optional=True),
    Call("InferenceContext.SDK_QUANTIZED", "a member"),
)


@dataclass(frozen=True)
class CheckedCall:
    """A call: expected by hefkit, and found in the SDK (None: missing)."""

    call: Call
    found: str | None

    @property
    def verdict(self) -> str:
        """`as expected`, or the difference."""
        if self.found is None:
            return "missing; hefkit does without" if self.call.optional else "missing"
        if re.search(r"\(\s*(self,\s*)?\*args\b[^,]*,\s*\*\*kwargs\b[^,]*\)", self.found):
            return "hidden by a decorator; cannot be told"
        lacking = [k for k in self.call.keywords if not re.search(rf"(?<![\w.*]){k}\s*[:=,)]", self.found)]
        if lacking and "**" not in self.found:
            return f"differs: no argument {', '.join(lacking)}"
        return "as expected"

    def to_json(self) -> dict[str, str | None]:
        """For --json."""
        return {"call": self.call.name, "expected": self.call.expected, "found": self.found, "verdict": self.verdict}


def check_sdk(ready: Ready, arch: str, warn: Callable[[str], None]) -> list[dict[str, str | None]]:
    """Start the SDK once and compare its calls with ours: the lines of --check, and what it adds to --json."""
    log.info("  Hailo's SDK %s in %s; %s", ready.version or "of unknown version", ready.sdk.python, ready.device)
    with tempfile.TemporaryDirectory(prefix="hefkit-") as folder, Dfc(ready.sdk, Path(folder), ready.settings) as dfc:
        facts = dfc.start()
        for text in ready.check_started(facts, arch):
            warn(text)
        signatures = dfc.signatures([call.name for call in CALLS])
    checked = [CheckedCall(call, signatures.get(call.name)) for call in CALLS]
    for one in checked:
        log.info("  %s: %s", one.call.name, one.verdict)
        log.info("    expected %s", one.call.expected)
        log.info("    found    %s", one_line(one.found or "nothing", 200))
    different = [c.call.name for c in checked if c.verdict.startswith(("missing", "differs")) and not c.call.optional]
    if different:
        warn(f"this SDK's calls differ from what hefkit expects: {one_line(', '.join(different))}")
    return [one.to_json() for one in checked]
