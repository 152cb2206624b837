"""Photographs and videos: which files a SOURCE means, and their pixels.

    find      image files below a folder, without the pictures that hefkit made
    sources   SOURCE on the command line -> photographs in order, or one video
    places    where a path of a data.yaml or a list may lie
    datayaml  the data.yaml of a YOLO dataset -> its splits and their pictures
    read      one image file -> upright BGR pixels, or the reason why not
    frames    photographs read ahead by threads, in order
    video     frames of a video file; a video file of annotated frames

Others use: datayaml, find, frames, read, sources, video.
"""
