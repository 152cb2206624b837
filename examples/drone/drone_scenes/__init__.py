"""Drawn scenes with drones in the sky; numpy and OpenCV only.

In reading order:
    noise       random textures and blends
    light       what a time of day looks like, as colours
    layers      a drawn thing with its coverage, and how it gets into a picture
    sky         gradient, sun, clouds, stars
    ground      hills, trees, houses, fields, and what stands in front of everything
    drones      multirotors from solids in space
    others      objects that are not drones: birds, aeroplanes, lamps, balloons
    plans       what is in picture number i; random, but nothing is drawn yet
    pictures    a plan to pixels and boxes
"""
