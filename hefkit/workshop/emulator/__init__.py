"""The INT8 emulator: an ONNX that computes what the chip is expected to compute.

Modules, in reading order:
    build        the steps below in order; start here
    plan         where the chip rounds, from the structure of the graph
    layers       the layers with weights, in one form
    statistics   smallest and largest value of each channel, streamed over the calibration set
    scales       scale and zero point of tensors
    arithmetic   codes of weights and biases, shifts
    rounding     the arithmetic of all layers, carried through the graph
    correction   level 1: correct the biases by what rounding shifts
    sensitivity  which layers bring most noise to the heads
    pieces       the sigmoid in straight pieces
    qdq          write the emulated ONNX, with Quantize/Dequantize pairs where the chip rounds

Others use: arithmetic, build.
"""
