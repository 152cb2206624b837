"""hefkit: from a YOLO in ONNX to a detector on a Raspberry Pi with a Hailo accelerator.

What every package uses:

    errors      what can go wrong, and the exit code of each failure
    text        words for people: the logger, one printable line of any text
    signals     Ctrl-C and SIGTERM wait for an import to end
    files       temporary name first, rename last
    cli         shared flags, logging, error -> exit code
    chips       every fact about Hailo's chips
    spec        what a model expects and returns
    spec_file   read and check the JSON beside the model
    names       class names that a user gives

What runs on the Raspberry Pi as well (standard library, numpy and cv2 only), in reading order:

    pictures    photographs, folders, lists and videos -> upright BGR pixels
    detect      letterbox, engine, decode, NMS, and the pipeline that runs them at once
    results     drawn pictures, JSON lines, CSV, COCO, label files of a run
    hef         read a HEF without HailoRT; which output is a box tensor, which a class tensor
    hailo       HailoRT and the chip
    measure     average precision, agreement of two sets of boxes, verdict and causes, speed
    cameras     Pi camera, USB and network cameras behind one protocol
    live        the live detector's loop, its sinks and its figures
    web         the live page
    mqtt        messages for MQTT and Home Assistant
    report      the page of a validation

The workstation's half, which is not copied to the Pi, and the one module that opens either:

    workshop    ONNX files, calibration sets, the INT8 emulator, Hailo's compiler
    open_model  a model file -> an engine: chip, emulation or float network
"""

__version__ = "0.1.0"
