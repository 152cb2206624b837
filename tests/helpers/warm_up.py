"""What libraries do when they are first used, done before scripts are forked: a script would need 0.1 s for it.

No session of onnxruntime: it starts threads, which a fork does not have.
"""

import argparse

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper

argparse.ArgumentParser().add_argument("--flag", type=int, help="compiles its patterns")
np.median([0.0, 1.0])  # imports numpy.ma
np.percentile([0.0, 1.0], 50)
cv2.getTextSize("a", cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)  # reads its fonts
_value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
_model = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [_value], []))
onnx.checker.check_model(onnx.shape_inference.infer_shapes(_model))  # registers the operators
