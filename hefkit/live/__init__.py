"""The live detector: a camera thread, the detection loop and the sinks that results go to.

    state      results, the sink's protocol, controls and statistics
    grabber    a camera on a thread of its own, opened again when it fails
    run        the loop from camera and engine to the sinks; restarts a chip that fails
    sinks      what sinks share: a thread of their own, one warning for a lasting failure
    filesinks  JSON lines, a recording, pictures of frames with detections
    window     the picture in a window, and its keys
    desk       all sinks as one, and what the keys do
    addresses  --web, --mqtt and --mqtt-topic, and the secrets that belong to them

Others use: addresses, desk, filesinks, grabber, run, sinks, state, window.
"""
