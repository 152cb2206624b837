"""The heads of a YOLO: found in the graph, and checked by comparing the cut network with the whole.

    tail        the graph below the heads: run it, and trace every head into it
    reference   the tensors with the predictions of all anchors
    refusal     the error for a graph that is not a detector that hefkit decodes
    discover    find the heads by the structure of the graph
    proof       cut network + our decoding == the whole ONNX

Others use: discover, proof.
"""
