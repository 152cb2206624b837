"""The SDK's calls as hefkit makes them, held against those of the installed SDK: what `--check` prints.

Expected are the signatures that published code and introspection show (docs/sdk-assumptions.md). A difference is no
failure by itself; it says where to look when one comes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hefkit.text import one_line


@dataclass(frozen=True)
class Call:
    """One name of the SDK that hefkit uses."""

    name: str
    expected: str
    keywords: tuple[str, ...] = ()  # that we pass by name
    optional: bool = False  # hefkit does without


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
class Finding:
    """A call, as expected and as found."""

    call: Call
    found: str | None

    @property
    def verdict(self) -> str:
        """`as expected`, or what differs."""
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


def compare(signatures: Mapping[str, str | None]) -> list[Finding]:
    """What the worker found, beside what we expect."""
    return [Finding(call, signatures.get(call.name)) for call in CALLS]


def lines(findings: list[Finding]) -> list[str]:
    """Three lines a call, for the console."""
    text = []
    for finding in findings:
        text += [
            f"  {finding.call.name}: {finding.verdict}",
            f"    expected {finding.call.expected}",
            f"    found    {one_line(finding.found or 'nothing', 200)}",
        ]
    return text
