"""Operators outside of standard ONNX: TensorRT's plugins, and those that onnxruntime writes into a saved model."""

from __future__ import annotations

from pathlib import Path

import onnx

from hefkit.errors import ModelError

STANDARD = ("", "ai.onnx")  # domains of ONNX itself
PLUGINS = "TRT"
RUNTIME, RUNTIME_BLOCKED = "com.microsoft", "com.microsoft.nchwc"  # onnxruntime's own
COMPUTABLE = frozenset({*STANDARD, RUNTIME})


def is_foreign(node: onnx.NodeProto) -> bool:
    """Whether onnxruntime cannot compute a node: a plugin of another runtime, such as TensorRT's NMS."""
    return node.domain not in COMPUTABLE


def opset(model: onnx.ModelProto) -> int:
    """The version of the standard operators; 0 where the model names none."""
    return next((o.version for o in model.opset_import if o.domain in STANDARD), 0)


def name_plugins(model: onnx.ModelProto) -> None:
    """Give TensorRT's plugins their domain: graphs edited for TensorRT leave it out, and the ONNX checker refuses that.

    Its NMS (EfficientNMS_TRT and others) lies below the heads, where a cut removes it.
    """
    plugins = [node for node in model.graph.node if str(node.op_type).endswith("_TRT")]  # bytes, where damaged
    for node in plugins:
        node.domain = node.domain or PLUGINS
    if any(node.domain == PLUGINS for node in plugins) and all(o.domain != PLUGINS for o in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(PLUGINS, 1))


def check_runtime_operators(path: Path, model: onnx.ModelProto, warnings: list[str]) -> None:
    """Append a warning about operators that only onnxruntime reads.

    Raises:
        ModelError: operators that fit one kind of processor only.
    """
    found = {domain: set[str]() for domain in (RUNTIME, RUNTIME_BLOCKED)}
    for node in model.graph.node:
        found.get(node.domain, set()).add(node.op_type)
    advice = "give the original export, or save with onnxruntime's level ORT_ENABLE_BASIC"
    if found[RUNTIME_BLOCKED]:
        raise ModelError(
            f"{path} was saved by onnxruntime with all its optimisations, whose operators "
            f"({', '.join(sorted(found[RUNTIME_BLOCKED]))}) fit one kind of processor; expected plain ONNX; {advice}"
        )
    if found[RUNTIME]:
        warnings.append(
            f"{path.name} was saved by onnxruntime's optimiser with its own operators "
            f"({', '.join(sorted(found[RUNTIME]))}), which Hailo's compiler is not known to read; {advice}"
        )
