"""The workstation's rooms: they may import onnx and onnxruntime, and every room above.

Graphs and heads:
    session     the one place that opens onnxruntime sessions
    graph       indexes and walks over a graph
    cut         keep what lies above chosen tensors
    fold        compute what constants alone give, and lists of tensors as slices
    preprocessed  refuse networks that divide by 255 themselves
    onnxfile    one ONNX on disk -> checked model, input size, class names
    tail        what lies below the heads: run it, and trace every head into it
    rawpred     the tensor with the predictions of all anchors
    nmsfree     trained one-to-one or not
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
    compilation compile_to_hef.py's checks, stages, gate and result
    emulation   its stages with --emulate
    engine      run float and emulated ONNX models behind the Engine protocol

Hailo's SDK:
    dfc_worker  the half that runs in the SDK's own Python; started, never imported
    logtail     follow a log while another process writes it
    dfcprocess  that worker as a process: commands, events, log, and its end
    dfclog      what the SDK's log says of what really ran
    dfcvoice    what of it is told, kept and quoted
    dfcfailures the SDK's failures as sentences with cures
    dfcgraph    the network as the SDK has parsed it
    machine     memory, disk, processor, graphics card
    sdkversions which release compiles for which chip, on which Python
    sdkfind     the Python that has the SDK
    dfc         the SDK behind typed calls
    sdkapi      the SDK's calls beside those that we expect
    sdkready    all checks before the first real call
    sdkfolder   the run folder
    har         the SDK's archives, and what went into them
    sdkquality  the SDK's own emulation against the float ONNX
    hefscript   the final model script
    hefsource   the parsed network, from the ONNX or from a HAR
    hefcheck    the compiled HEF, read back
    hefcompile  compile_to_hef.py's stages without --emulate
    deploy      what goes to the Pi
"""

import os

# onnxruntime's wheels report to their maker unless this stands there before they are imported (its Privacy.md); what
# somebody has set is left as it is
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
