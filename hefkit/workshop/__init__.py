"""The workstation's rooms: they may import onnx and onnxruntime, and every room above.

session     the one place that opens onnxruntime sessions
graph       indexes and walks over a graph
cut         keep what lies above chosen tensors
onnxfile    one ONNX on disk -> checked model, input size, class names
tail        what lies below the heads: run it, and trace every head into it
rawpred     the tensor with the predictions of all anchors
notheads    say what a graph is that is no detector
heads       find the raw YOLO heads by the structure of the graph
proof       cut network + our decode == uncut network
calibration a folder of photographs -> the calibration set
calibset    read that set back, checked
modelscript the model script's commands
emulator    an ONNX that rounds where the chip rounds
engine      run float and emulated ONNX models behind the Engine protocol
"""
