"""Every expected failure, and the exit code it ends with.

    HefkitError                 (base; never raised itself)
    |-- UsageError         2    bad flags, output not writable
    |-- DataError          3    images, dataset, calibration set, disk full
    |-- ModelError         4    ONNX, HEF, spec, model script
    |-- ToolchainError     5    Hailo SDK or a Python package missing or failed
    |-- DeviceError        6    chip, camera, `hailo_platform`
    `-- GateError          7    a quality gate failed

A message is one line: what was wrong; what was expected; what to do. A bug is none of these: it
keeps its traceback and exits with 1.
"""

from __future__ import annotations

EXIT_INTERRUPTED = 130  # Ctrl-C
EXIT_TERMINATED = 143  # SIGTERM


class HefkitError(Exception):
    """Base of the expected failures; `exit_code` is what the process ends with."""

    exit_code = 1


class UsageError(HefkitError):
    """Bad flags, or an output that cannot be written."""

    exit_code = 2


class DataError(HefkitError):
    """Images, a dataset or a calibration set that cannot be used; a full disk."""

    exit_code = 3


class ModelError(HefkitError):
    """An ONNX, HEF, spec or model script that cannot be used."""

    exit_code = 4


class ToolchainError(HefkitError):
    """The Hailo SDK or a Python package is missing or failed."""

    exit_code = 5


class DeviceError(HefkitError):
    """The chip, the camera or `hailo_platform` is missing or failed."""

    exit_code = 6


class GateError(HefkitError):
    """There is a result, but it is worse than the limit that the user has set."""

    exit_code = 7
