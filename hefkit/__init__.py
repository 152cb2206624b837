"""hefkit: from a YOLO in ONNX to a detector on a Raspberry Pi with a Hailo accelerator.

For programs (docs/python-api.md):

    with hefkit.load("best.hef", conf=0.4) as model:
        found = model.detect(frame_bgr)  # found.xyxy, found.score, found.class_id, found.names
        picture = hefkit.annotate(frame_bgr, found)

What every package uses:

    errors      what can go wrong, and the exit code of each failure
    text        words for people: the logger, one printable line of any text
    signals     Ctrl-C and SIGTERM become exceptions, but never in the middle of an import
    files       temporary name first, rename last
    staging     several files in place together, whatever kills the run
    cli         shared flags, logging, error -> exit code
    chips       every fact about Hailo's chips
    spec        what a model expects and returns
    spec_file   read and check the JSON beside the model
    names       class names that a user gives

What runs on the Raspberry Pi as well (standard library, numpy and cv2 only), in reading order:

    pictures    photographs, folders, lists and videos -> upright BGR pixels
    detect      letterbox, engine, decode, NMS, and the pipeline that runs them in parallel
    results     drawn pictures, JSON lines, CSV, COCO, label files of a run
    hef         read a HEF without HailoRT; which output is a box tensor, which a class tensor
    hailo       HailoRT and the chip
    measure     average precision, agreement of two sets of boxes, verdict and causes, speed
    cameras     Pi camera, USB and network cameras behind one protocol
    live        the live detector's loop, its sinks and its figures
    web         the live page
    mqtt        messages for MQTT and Home Assistant

For the workstation only, and the one module that opens every kind of model:

    workshop    ONNX files, calibration sets, the INT8 emulator, Hailo's compiler
    open_model  a model file -> an engine: chip, emulation or float network; the Python API
"""

from __future__ import annotations

from hefkit import errors

TYPE_CHECKING = False  # `typing` takes some milliseconds, and a script's first lines wait for this file
if TYPE_CHECKING:
    from typing import Any

    from hefkit.detect.detections import NamedDetections as Detections
    from hefkit.open_model import Model, annotate, load

__version__ = "0.1.0"
__all__ = ["Detections", "Model", "__version__", "annotate", "errors", "load"]

# imported at first use, because `import hefkit` must not wait for numpy and OpenCV
_HOMES = {
    "Detections": ("hefkit.detect.detections", "NamedDetections"),
    "Model": ("hefkit.open_model", "Model"),
    "annotate": ("hefkit.open_model", "annotate"),
    "load": ("hefkit.open_model", "load"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'hefkit' has no attribute {name!r}")
    import importlib

    module, inner = _HOMES[name]
    value = globals()[name] = getattr(importlib.import_module(module), inner)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
