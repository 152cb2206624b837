"""Photographs and videos: which files a SOURCE means, and their pixels.

    find     image files below a folder, without the pictures that hefkit made
    sources  SOURCE on the command line -> photographs in order, or one video
    read     one image file -> upright BGR pixels, or the reason why not
    small    a small copy of a picture, decoded fast
    frames   photographs read ahead by threads, in order
    video    frames of a video file; a video file of annotated frames

Others use: find, frames, read, small, sources, video.
"""
