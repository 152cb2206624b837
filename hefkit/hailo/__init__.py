"""HailoRT and the chip: open a HEF on it, keep it busy, explain every failure, check the device.

    codes      HailoRT's status numbers -> cause and cure, as one of our errors
    system     facts of a chip that the kernel knows without HailoRT
    ring       slots in flight through HailoRT, and their buffers
    engine     a HEF on an open chip
    runtime    HailoRT's Python package; opens the chip and a HEF on it
    selfcheck  the checks of `validate_hef.py --device`

Others use: ring, runtime, selfcheck.
"""
