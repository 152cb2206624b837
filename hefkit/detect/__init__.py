"""From a picture to detections: letterbox, model, decoding, NMS, and all of it as a pipeline.

    preprocess  the letterbox: photograph -> input tensor, and boxes back to the photograph
    quant       quantised codes <-> real values
    detections  boxes, scores and classes of one image
    nms         non-maximum suppression
    readers     raw head tensors -> scores above the threshold, boxes of given anchors
    decode      raw head tensors -> detections
    hailo_nms   boxes decoded by HailoRT -> detections
    engine      the protocol of every engine (chip, emulation, float model), and slots for those on the CPU
    detector    one picture through an engine -> detections in its pixels
    channel     a bounded queue that either side can end
    pipeline    reading, letterbox, engine and decoding in parallel
    arguments   checks of what a program passes to the Python API
    flags       the command-line flags of detecting scripts

Others use: arguments, decode, detections, detector, engine, flags, pipeline, preprocess, quant.
"""
