"""The workshop: the packages of the workstation. They may import onnx, onnxruntime and every package of the Pi.

    cluster      a Dask cluster: found, or started here
    network      the network of an ONNX file: read, checked, made static, cut
    heads        the heads of a YOLO: found, and compared with the whole ONNX
    calibration  photographs -> a calibration set, and back
    script       the compiler's model script: read, checked, composed
    emulator     the INT8 arithmetic of the chip as an ONNX
    dfc          Hailo's Dataflow Compiler (the SDK): found, started, its log understood
    engine       float and emulated ONNX models behind the Engine protocol
    compile      the stages of compile_to_hef.py
    sweep        several candidates side by side, measured and ranked

Others use: engine.
"""

import os

# onnxruntime's wheels send telemetry unless this is set before they are imported (Privacy.md of onnxruntime); a value
# that the user has set stays
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
