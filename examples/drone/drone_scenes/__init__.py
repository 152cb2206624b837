"""Drawn scenes with drones in the sky; numpy and OpenCV only.

In reading order:
    noise       random textures and blends
    light       the colours of each time of day
    layers      a drawn object with its coverage, and how it is put into a picture
    sky         gradient, sun, clouds, stars
    ground      hills, trees, houses, fields; twigs and wires in front of everything
    drones      multirotors from solids in space
    others      objects that are not drones: birds, aeroplanes, lamps, balloons
    plans       what is in picture number i; random, but nothing is drawn yet
    pictures    a plan to pixels and boxes
"""
