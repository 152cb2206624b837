"""The calibration set: made from photographs, and read back by the compiler's steps.

    dataset     one SOURCE -> its photographs
    remote      pictures in buckets and archives, by fsspec
    sources     every SOURCE -> the pictures to choose from
    videos      frames of videos as pictures to choose from
    folder      the folder of a set: names, what may be written and removed
    choice      which pictures make the set, and what they cover
    stage       worker threads: photograph -> letterboxed picture, as a PNG or for the array
    array_file  the array on the disk, written picture by picture
    sheet       the contact sheet
    make        plan, write, check: pictures, manifest, contact sheet, coverage
    read        read a set back, checked

Others use: dataset, folder, make, read, sources.
"""
