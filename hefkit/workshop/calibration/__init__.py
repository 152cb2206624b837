"""The calibration set: made from photographs, and read back by the compiler's steps.

    dataset     SOURCE -> the photographs to choose from
    folder      the folder of a set: names, what may be written and removed
    stage       worker threads: photograph -> letterboxed picture, as a PNG or for the array
    array_file  the array on the disk, written picture by picture
    sheet       the contact sheet
    make        choose, write, check: pictures, manifest, contact sheet
    read        read a set back, checked

Others use: dataset, folder, make, read.
"""
