"""What compile_to_hef.py does: from the ONNX to a HEF with Hailo's SDK, or to an INT8 emulation without it.

Modules, in reading order:
    paths       cheap checks of paths, before any package is imported; the lines that copy a HEF to the Pi
    run         options, checks, stages, gate and result, the same for both kinds of compilation
    emulate     the stages with --emulate
    forecast    why a forecast is bad, and what helps
    hef         the stages with Hailo's SDK
    source      the parsed network and its script, from the ONNX or from a HAR of an earlier run
    script      the final model script: base file, flags, the SDK's names of the layers
    har         HARs, the SDK's archives, and the record beside each of them
    quality     compare the quantised network with the float ONNX
    sdk_engine  the network that the SDK quantised, emulated by the SDK, as an engine
    accuracy    --data: average precision of the quantised network; the last lines of a run
    check       read the compiled HEF back before it gets its name
    folder      the run folder, runs/compile/NAME

Others use: accuracy, emulate, folder, forecast, har, hef, paths, quality, run, sdk_engine.
"""
