"""What a run over files writes: run folder, annotated pictures, text formats, counts and times.

    folder     the names of a run's files; files that hefkit did not write are never replaced
    draw       boxes, labels and the stamp of the emulation in a picture
    lettering  class names that are not in Latin letters
    formats    JSON lines, CSV, COCO, YOLO labels
    outputs    all files of a run, put in place together at the end
    progress   a progress bar on stderr
    run        every frame through the pipeline into the outputs; counts and times

Others use: draw, folder, formats, outputs, progress, run.
"""
