"""A strict double of HailoRT's Python package: it refuses what the sources of 4.23 refuse.

Only on the PYTHONPATH of test processes. `hailo_double.control` sets how the machine behaves and lists broken rules.
"""

from __future__ import annotations

from hailo_double import control

if control.fault("import") is not None:
    raise ImportError(f"_pyhailort version (4.20.0) does not match pyhailort version ({control.settings.library})")

import hailo_platform.pyhailort._pyhailort as _pyhailort
from hailo_platform.pyhailort.pyhailort import (
    HEF,
    AsyncInferJob,
    Device,
    FormatOrder,
    FormatType,
    HailoCommunicationClosedException,
    HailoRTException,
    HailoRTStreamAbortedByUser,
    HailoSchedulingAlgorithm,
    VDevice,
)

__version__ = control.settings.library

__all__ = [
    "HEF",
    "AsyncInferJob",
    "Device",
    "FormatOrder",
    "FormatType",
    "HailoCommunicationClosedException",
    "HailoRTException",
    "HailoRTStreamAbortedByUser",
    "HailoSchedulingAlgorithm",
    "VDevice",
    "_pyhailort",
]
