"""The network of an ONNX file: read, checked, made static, and cut at chosen tensors.

    session     open and run onnxruntime sessions
    graph       indexes of an ONNX graph, and walks over it
    operators   operators outside of standard ONNX
    cut         the part of a graph above chosen tensors
    fold        other forms of weights -> plain initializers
    limits      bounds, checked before anything is computed
    image       the image input: one, RGB, of fixed size
    pixelops    operators that work on each pixel alone
    inputmap    what the graph does to the colours of its input
    file        an ONNX file -> a checked, static model with class names
    floatnet    the cut network in float32, class scores after the sigmoid

Others use: cut, file, floatnet, graph, operators, session.
"""
