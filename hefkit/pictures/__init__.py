"""Photographs and videos: which files a SOURCE means, and their pixels.

    find      image files below a folder, without the pictures that hefkit made
    kinds     photograph or video, by content; whether a recording was cut off
    places    paths that were written on another machine -> files of this one
    sources   SOURCE on the command line -> photographs in order, or one video
    datayaml  the data.yaml of a dataset -> its splits and their pictures
    quiet     OpenCV's and its image libraries' messages kept off the terminal
    header    what the header of a picture file says, and the memory that it needs
    memory    how much memory is free
    read      one image file -> upright BGR pixels, or the reason why not
    small     a small copy of a picture, decoded fast
    frames    photographs read ahead by threads, in order
    video     frames of a video file
    writer    a video file of annotated frames, in H.264 where the machine can

Others use: datayaml, find, frames, header, kinds, memory, places, quiet, read, small, sources, video, writer.
"""
