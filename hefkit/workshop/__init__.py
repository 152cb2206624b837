"""The workstation's rooms: they may import onnx and onnxruntime, and every room above.

Graphs and heads:
    session     the one place that opens onnxruntime sessions
    graph       indexes and walks over a graph
    cut         keep what lies above chosen tensors
    onnxfile    one ONNX on disk -> checked model, input size, class names
    tail        what lies below the heads: run it, and trace every head into it
    rawpred     the tensor with the predictions of all anchors
    notheads    say what a graph is that is no detector
    heads       find the raw YOLO heads by the structure of the graph
    proof       cut network + our decode == uncut network

Calibration set:
    dataset     folders, splits, data.yaml, lists -> pictures to choose from
    calibdir    what may be written into the set's folder
    contactsheet  the set on one picture
    calibration photographs -> the calibration set
    calibset    read that set back, checked

Emulator and compiler:
    scriptcommands  a model script as data, and what it makes explicit
    scriptgrammar   text <-> commands, canonical spelling
    scriptforms     what may stand at one place of a command
    scripttables    the commands that there are
    scriptcures     lines that do not exist or must not be, and what to write instead
    scriptrules     what the linter says of one command
    scriptlint      what it says of a script: errors and warnings
    scriptcompose   base script + what hefkit knows -> the compiler's script
    modelscript the door to these: read, lint, compose
    floatnet    the cut network in float32, its class scores after the sigmoid
    quantplan   where the chip rounds
    statistics  ranges, variances and histograms, streamed over the set
    noise       which channels' rounding errors reach the heads
    ranges      from statistics to scale and zero point
    weights     signed codes with a scale per output channel
    correction  what rounding shifts, scale and bias take back
    sensitivity which tensors deserve 16 bit
    qdq         write the emulated ONNX
    emulator    the steps above, in order
    agreement   float network against emulation: boxes and noise
    outputs     cheap checks of paths, before any package is imported
    compilation the road of compile_to_hef.py
    engine      run float and emulated ONNX models behind the Engine protocol
"""
