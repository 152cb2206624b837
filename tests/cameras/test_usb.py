"""USB cameras, against a strict double of the kernel's video nodes and of OpenCV's V4L2."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hefkit.cameras import usb, v4l2
from hefkit.cameras.camera import Camera
from hefkit.cameras.open import open_camera
from hefkit.cameras.source import parse_source
from hefkit.errors import DeviceError
from hefkit.spec import InputSpec
from tests.doubles.v4l2 import META_CAPTURE, MJPG, YUYV, Machine, Node, plugged
from tests.helpers.overdue import join_overdue

ISP = {"bus": "platform:1000880000.pisp_be", "driver": "pispbe"}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine without a video node, until a test plugs one in."""
    with plugged(monkeypatch) as machine:
        yield machine


def opened(source: str = "usb", **options: Any) -> Camera:
    """A camera."""
    return open_camera(parse_source(source), InputSpec((64, 64)), **options)


def owner(node: Node) -> Any:
    """OpenCV's capture of a node."""
    assert node.owner is not None
    return node.owner


def test_compressed_pictures_and_one_buffer(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """MJPG first, then size and rate: asked for in another order, this camera would fall to 10 a second."""
    node = machine.plug("/dev/video0")

    with caplog.at_level("INFO", "hefkit"):
        camera = opened("0")

    assert (owner(node)._format, owner(node)._size, owner(node)._fps, owner(node)._buffers) == (
        MJPG,
        (1280, 720),
        30,
        1,
    )
    assert caplog.messages == ["/dev/video0: 1280x720 at 30 frames a second, MJPG"]
    assert camera.name == "/dev/video0"
    shots = [camera.read() for _ in range(5)]
    assert [shot.picture[0, 0, 0] for shot in shots if shot] == [0, 1, 2, 3, 4], "the first picture is not lost"
    assert shots[0] is not None and shots[0].picture.shape == (720, 1280, 3) and shots[0].small is None
    camera.close()
    camera.close()
    assert node.owner is None


def test_what_is_granted_is_read_back(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """An old camera gives what it has, and a warning says so."""
    machine.plug("/dev/video0", formats={YUYV: {(640, 480): 15}})

    camera = opened("/dev/video0")
    shot = camera.read()
    camera.close()

    assert shot is not None and shot.picture.shape == (480, 640, 3)
    assert caplog.messages == ["/dev/video0 gives 640x480 at 15 frames a second, YUYV; asked for 1280x720 at 30, MJPG"]


def test_other_sizes_can_be_asked_for(machine: Machine) -> None:
    """Full HD, where the camera has it."""
    machine.plug("/dev/video0")

    camera = opened("0", size_wh=(1920, 1080))
    shot = camera.read()
    camera.close()

    assert shot is not None and shot.picture.shape == (1080, 1920, 3)


def test_usb_is_the_first_that_delivers(machine: Machine) -> None:
    """Neither the Pi's own nodes nor a camera's metadata are tried; one that is in use or silent is passed over."""
    isp = machine.plug("/dev/video0", **ISP)
    busy = machine.plug("/dev/video10", busy=True)
    metadata = machine.plug("/dev/video11", caps=META_CAPTURE)
    silent = machine.plug("/dev/video9", pictures=0)
    good = machine.plug("/dev/video12")
    other = machine.plug("/dev/video13")

    camera = opened("usb")

    assert camera.name == "/dev/video12" and good.owner is not None
    assert [node.opened for node in (isp, metadata, silent, busy, good, other)] == [0, 0, 1, 1, 1, 0]
    camera.close()
    assert silent.owner is None


def test_a_loopback_is_a_camera(machine: Machine) -> None:
    """v4l2loopback sits on no bus, and is what people feed their own pictures into."""
    machine.plug("/dev/video0", bus="platform:v4l2loopback-000", driver="v4l2 loopback")

    opened("usb").close()


@pytest.mark.parametrize(
    "facts, source, words",
    [
        pytest.param({}, "/dev/video7", r"there is no /dev/video7; video devices here: /dev/video0", id="missing"),
        pytest.param({"mode": 0}, "0", r"may not be opened by this user; .*usermod -aG video", id="permission"),
        pytest.param({"mode": 0}, "usb", r"/dev/video0 may not be opened .*usermod -aG video", id="permission, any"),
        pytest.param({"busy": True}, "0", r"/dev/video0 is in use by another program; .*fuser", id="busy"),
        pytest.param({"busy": True}, "usb", r"/dev/video0 is in use by another program", id="busy, any"),
        pytest.param({"pictures": 0}, "0", r"can be opened but delivers no picture", id="silent"),
        pytest.param({"caps": META_CAPTURE}, "0", r"\(HD Camera\) delivers no pictures: .*metadata", id="metadata"),
        pytest.param({"video": False}, "0", r"is not a video device", id="not a video device"),
        pytest.param(
            ISP, "usb", r"no USB camera is attached; none of the video devices here \(1\) is one", id="only the ISP"
        ),
    ],
)
def test_why_there_is_no_picture(machine: Machine, facts: dict[str, Any], source: str, words: str) -> None:
    """Each has its cause and its cure."""
    node = machine.plug("/dev/video0", **facts)

    with pytest.raises(DeviceError, match=words):
        opened(source)

    assert node.owner is None


def test_nothing_is_plugged_in(machine: Machine) -> None:
    """The Pi's own connector is another source."""
    with pytest.raises(DeviceError, match=r"no USB camera is attached; expected .* the source csi"):
        opened("usb")
    with pytest.raises(DeviceError, match="there is no /dev/video0; video devices here: none"):
        opened("0")


def test_unplugged_and_plugged_in_again(machine: Machine) -> None:
    """None at once, a clean close, and a new start."""
    node = machine.plug("/dev/video0")
    camera = opened("0")
    assert camera.read() is not None

    del machine.nodes["/dev/video0"]
    assert camera.read() is None
    camera.close()

    with pytest.raises(DeviceError, match="is the camera plugged in"):
        opened("0")
    machine.nodes["/dev/video0"] = node
    again = opened("0")
    assert again.read() is not None
    again.close()


def test_a_camera_that_falls_silent(machine: Machine) -> None:
    """It stays plugged in, and no picture comes any more."""
    machine.plug("/dev/video0", pictures=3)
    camera = opened("0")

    shots = [camera.read() for _ in range(4)]
    camera.close()

    assert [shot is None for shot in shots] == [False, False, False, True]


def test_damaged_pictures_are_passed_over(machine: Machine) -> None:
    """A JPEG that lost a packet is not a reason to open the camera again."""
    machine.plug("/dev/video0", damaged=(0, 3, 4))
    camera = opened("0")

    shots = [camera.read() for _ in range(4)]
    camera.close()

    assert [shot.picture[0, 0, 0] for shot in shots if shot] == [1, 2, 5, 6]


def test_a_driver_that_hangs(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening has a limit; it is not tried again meanwhile; a camera that opens too late is closed."""
    monkeypatch.setattr(usb, "OPEN_S", 0.1)
    come = threading.Event()
    node = machine.plug("/dev/video0", hangs=come)

    for _ in range(3):
        with pytest.raises(DeviceError, match=r"has not answered within 0\.1 s; unplug it"):
            opened("0")
    assert node.opened == 1

    come.set()
    join_overdue()
    assert node.owner is None
    opened("0").close()


def test_the_numbers_are_the_kernel_s() -> None:
    """_IOC of linux/ioctl.h: direction, size, 'V', number."""
    write, read = 1, 2

    def ioc(direction: int, number: int, size: int) -> int:
        return direction << 30 | size << 16 | ord("V") << 8 | number

    assert ioc(read, 0, v4l2.CAPABILITY.size) == v4l2.QUERYCAP and v4l2.CAPABILITY.size == 104
    assert ioc(read | write, 8, v4l2.REQUEST.size) == v4l2.REQBUFS and v4l2.REQUEST.size == 20


def test_a_file_is_no_video_device(tmp_path: Path) -> None:
    """The real kernel's answer to our question, where there is no camera to ask."""
    path = tmp_path / "video0"
    path.touch()

    with pytest.raises(OSError, match="Inappropriate ioctl"):
        v4l2.query(str(path))
    with pytest.raises(FileNotFoundError):
        v4l2.query(str(tmp_path / "video1"))
    assert not v4l2.is_busy(str(path)) and not v4l2.is_busy(str(tmp_path / "video1"))


def test_this_machine_s_cameras() -> None:
    """Real hardware, where there is some: a picture, and the camera is free again afterwards."""
    try:
        cameras = [path for path in v4l2.video_nodes() if v4l2.query(path).usb]
    except PermissionError:
        pytest.skip("the video devices of this machine may not be opened by this user")
    if not cameras:
        pytest.skip("no USB camera on this machine")
    for _ in range(2):
        camera = opened("usb")
        shot = camera.read()
        camera.close()
        assert shot is not None and shot.picture.ndim == 3
