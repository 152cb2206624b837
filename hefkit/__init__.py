"""hefkit: the road from a YOLO in ONNX to a detector on a Hailo-8/8L, as small rooms.

Reading order of the rooms that also run on the Raspberry Pi (standard library, numpy and cv2 only):

    errors      what can go wrong, and the exit code of each
    signals     signals that wait for an import to end
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
    nmsoutput   boxes decoded inside a HEF -> detections
    engines     one protocol for every way to run a model
    slots       several batches in flight, for engines on the CPU
    ownpictures  pictures that hefkit made, which are no photographs
    sources     folders, globs, lists -> images in path order; or one video
    frames      pictures read ahead, in order
    videofile   frames out of a video, annotated frames into one
    detector    source image -> detections in its own pixels, with timings
    channel     a bounded queue that either side can end
    pipeline    reading, letterbox, engine, decoding and the caller, all at once
    tally       counts and times of a run
    progress    a bar on stderr, where tqdm is installed
    draw        boxes, labels and the emulation's stamp in a picture
    runfolder   names of a run's files; nothing of the user's is overwritten
    formats     JSON lines, CSV, COCO, YOLO labels
    sinks       formats, annotated pictures or video, crops
    filerun     every frame of a run into the outputs and the tally
    benchmark   an engine alone, and the share of its rate that the pipeline reaches
    detectflags flags that every detecting script has
    live        what a camera gives, what a sink gets, the figures of a live run
    deadline    a deadline for calls that have none
    camerasource  which camera SOURCE means; no password is ever shown
    cvcapture   what USB and network cameras share
    camerafile  a video file as a camera
    v4l2        what the kernel says of /dev/videoN
    camerausb   USB cameras
    netprobe    why can this address not be opened?
    cameranet   RTSP and HTTP cameras, with a limit on every wait
    cameracsi   the Pi's own cameras, scaled by the ISP
    cameras     one door to all of them
    grabber     a camera's thread: the newest frame wins
    livesinks   JSON lines, a recording, pictures of what was seen
    window      the live picture in a window
    livedesk    all sinks behind one; the window's keys
    livesignals Ctrl-C and SIGTERM for a program that runs for weeks
    liverun     the live detector's loop
    credentials passwords and tokens, from the environment or a file
    netaddress  where to serve and to publish
    webguard    who may see the web page
    webdoor     how many connections there are
    webframes   one encoded picture for any number of viewers
    webpage     the page itself
    webserver   what the page's addresses answer
    web         the web page as a sink
    mqttdiscovery topics, and what Home Assistant is told
    mqttcounts  how many objects there are
    mqttlink    a connection to a broker that comes back
    mqtt        MQTT as a sink
    xxh3        the checksum of newer HEFs
    hefmessage  protobuf messages as a schema describes them
    hefwire     protobuf's wire format, with bounds on everything
    hefproto    the messages of a HEF that we read
    hefcontainer  header, lengths and checksum of a HEF
    hefstreams  boundary layers of a HEF -> virtual streams
    hefnms      the NMS that HailoRT computes on the host
    hefops      all that HailoRT computes on the host: NMS, softmax, argmax
    hefgroups   network groups, and the order of their outputs
    hef         a HEF as an inspection shows it, without HailoRT
    hefwords    the same in words, and held against its spec
    headpairs   which output of a HEF is a box tensor, which a class tensor
    headmatch   outputs of a HEF -> heads, by its spec or by what the file tells
    chipfit     which HEF runs on which chip
    hailocodes  status numbers of HailoRT -> what to do
    hailofacts  what the system knows of a chip without HailoRT
    hailobuffers  memory for the DMA, checked
    hailoring   batches in flight through HailoRT
    hailoengine  a HEF on an open chip
    hailort     HailoRT's Python package, and the chip
    selfcheck   is everything there that a HEF needs?
    labels      the label file of a picture -> boxes
    evaluate    do two sets of boxes agree? average precision

`hefkit.workshop` holds the workstation's rooms (onnx, onnxruntime); no Pi room imports it, except
`engines.open_engine`, late, for `.onnx` files. In the same way it opens `hailort` for `.hef` files.
"""

__version__ = "0.1.0"
