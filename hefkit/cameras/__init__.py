"""Cameras: the Pi's connector (csi), USB, network, and video files that are read like a camera.

    source    SOURCE of the live detector -> which camera it means; no password is ever shown
    camera    the protocol Camera, and one frame of it
    deadline  a time limit for calls that have none
    opencv    a camera read through cv2.VideoCapture
    v4l2      what the kernel knows of /dev/videoN
    usb       USB cameras
    probe     why an address cannot be opened
    net       RTSP and HTTP cameras
    csi       the Pi's own cameras
    open      open the csi, USB or network camera of a source
    file      a video file as a camera

Others use: camera, file, open, source.
"""
