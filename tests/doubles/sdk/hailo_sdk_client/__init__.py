"""A strict double of Hailo's `hailo_sdk_client`, for tests only: it compiles nothing, and its HEFs say so.

Its signatures, states, names, log lines and exceptions are those that public sources show of the real SDK. Everything
else raises, as in the real SDK. HAILO_DOUBLE names a file with failures on purpose: see double_parts/behaviour.py.
"""

from __future__ import annotations

import os
import sys

from double_parts.behaviour import act, first_start, note_process, version, wanted

__version__ = version()
note_process()

if "CUDA_VISIBLE_DEVICES" not in os.environ:  # the real SDK then chooses by itself
    os.environ["CUDA_VISIBLE_DEVICES"] = "99"
    print("[info] No GPU chosen and no suitable GPU found, falling back to CPU.")
sys.stderr.write("E0000 00:00:1759859330.7 cuda_dnn.cc:8310] Unable to register cuDNN factory: noise, as there\n")
if wanted("first_start") and not os.path.isdir(".install_logs"):
    first_start()
act("import")
if wanted("import_error"):
    raise ImportError(wanted("import_error"))

from hailo_sdk_client.client_runner import ClientRunner  # noqa: E402
from hailo_sdk_client.exposed_definitions import CalibrationDataType, InferenceContext, States  # noqa: E402

__all__ = ["CalibrationDataType", "ClientRunner", "InferenceContext", "States"]
