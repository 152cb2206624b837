"""hefkit: the road from a YOLO in ONNX to a detector on a Hailo-8/8L, as small rooms.

Reading order of the rooms that also run on the Raspberry Pi (standard library, numpy and cv2 only):

    errors      what can go wrong, and the exit code of each
    cli         shared flags, logging, error -> exit code
    files       temporary name first, rename last
    spec        what a model expects and returns; the JSON beside the model
    names       class names that a user gives
    folders     which files of a folder are pictures
    images      one photograph -> upright BGR pixels, or the reason why not
    preprocess  the only letterbox, and its way back
    quant       codes <-> real values
    detections  boxes, scores, classes
    nms         suppress boxes that overlap a better one
    readers     one raw tensor -> its scores above the threshold, the boxes of chosen cells
    decode      raw head tensors -> detections
    engines     one protocol for every way to run a model
    sources     folders, globs, lists -> images in path order
    detector    source image -> detections in its own pixels, with timings
    tally       counts and times of a run
    progress    a bar on stderr, where tqdm is installed
    draw        boxes, labels and the emulation's stamp in a picture
    runfolder   names of a run's files; nothing of the user's is overwritten
    sinks       JSON lines, annotated pictures, crops
    xxh3        the checksum of newer HEFs
    hefwire     protobuf's wire format, with bounds on everything
    hefproto    the messages of a HEF that we read
    hefcontainer  header, lengths and checksum of a HEF
    hefstreams  boundary layers of a HEF -> virtual streams
    hefnms      the NMS that HailoRT computes on the host
    hefops      all that HailoRT computes on the host: NMS, softmax, argmax
    hefgroups   network groups, and the order of their outputs
    hef         a HEF as an inspection shows it, without HailoRT
    hefwords    the same in words, and held against its spec
    pipeline    photographs through a detector into files
    evaluate    do two sets of boxes agree?

`hefkit.workshop` holds the workstation's rooms (onnx, onnxruntime); no Pi room imports it, except
`engines.open_engine`, late, for `.onnx` files.
"""

__version__ = "0.1.0"
