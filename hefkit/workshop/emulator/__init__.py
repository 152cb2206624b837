"""The INT8 emulator: an ONNX that computes what the chip is expected to compute.

Modules, in reading order:
    build        the steps below in order; start here
    plan         where the chip rounds, from the structure of the graph
    statistics   ranges, variances and histograms of tensors, streamed over the calibration set
    noise        how much the rounding noise of a channel matters at the heads
    codes        scale and zero point of tensors, codes of weights
    sensitivity  which tensors suffer most in 8 bit
    correction   correct the scale and bias of layers by what rounding shifts
    qdq          write the emulated ONNX, with Quantize/Dequantize pairs where the chip rounds

Others use: build.
"""
