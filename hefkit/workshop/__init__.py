"""The workstation's rooms: they may import onnx and onnxruntime, and every room above.

onnxfile    one ONNX on disk -> checked model, input size, class names
heads       find the raw YOLO heads by the structure of the graph
cut         keep what lies above them
proof       cut network + our decode == uncut network
calibration a folder of photographs -> the calibration set
calibset    read that set back, checked
modelscript the model script's commands
emulator    an ONNX that rounds where the chip rounds
engine      run float and emulated ONNX models behind the Engine protocol
"""
