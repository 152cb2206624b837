"""What SOURCE means, and that no password of it is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hefkit.cameras.source import CameraSource, masked, parse_source, with_login
from hefkit.errors import DataError, UsageError


@pytest.mark.parametrize(
    "text, kind, name, number, path",
    [
        ("csi", "csi", "csi", 0, None),
        ("csi:1", "csi", "csi:1", 1, None),
        ("usb", "usb", "usb", 0, None),
        ("0", "usb", "/dev/video0", 0, "/dev/video0"),
        ("12", "usb", "/dev/video12", 0, "/dev/video12"),
        ("/dev/video3", "usb", "/dev/video3", 0, "/dev/video3"),
        (
            "/dev/v4l/by-id/usb-046d_C920-video-index0",
            "usb",
            "/dev/v4l/by-id/usb-046d_C920-video-index0",
            0,
            "/dev/v4l/by-id/usb-046d_C920-video-index0",
        ),
    ],
)
def test_attached_cameras(text: str, kind: str, name: str, number: int, path: str | None) -> None:
    """They need not be there yet: a missing camera is an error when it is opened."""
    source = parse_source(text)

    assert source == CameraSource(kind, name, number, Path(path) if path else None)
    assert source.live


@pytest.mark.parametrize(
    "url, kind, name",
    [
        ("rtsp://10.0.0.7/stream", "rtsp", "rtsp://10.0.0.7/stream"),
        ("rtsp://10.0.0.7:8554/a/b?c=1", "rtsp", "rtsp://10.0.0.7:8554/a/b?c=1"),
        ("RTSP://Cam.local/x", "rtsp", "RTSP://Cam.local/x"),
        ("rtsps://[fe80::1]:322/x", "rtsp", "rtsps://[fe80::1]:322/x"),
        ("http://cam/video.mjpg", "http", "http://cam/video.mjpg"),
        ("https://cam", "http", "https://cam"),
        ("tcp://10.0.0.7:8888", "stream", "tcp://10.0.0.7:8888"),
        ("udp://admin:s3cret@0.0.0.0:5000", "stream", "udp://***@0.0.0.0:5000"),
        ("rtsp://admin:s3cret@cam/1", "rtsp", "rtsp://***@cam/1"),
        ("rtsp://admin@cam/1", "rtsp", "rtsp://***@cam/1"),
        ("rtsp://admin:p%40ss%2Fw@cam:554/1", "rtsp", "rtsp://***@cam:554/1"),
        ("rtsp://admin:p@ss@cam/1", "rtsp", "rtsp://***@cam/1"),
        ("rtsp://cam/user=admin&password=tl1w&channel=1", "rtsp", "rtsp://cam/user=***&password=***&channel=1"),
        ("http://cam/video.cgi?usr=me&pwd=s3cret&fps=5", "http", "http://cam/video.cgi?usr=***&pwd=***&fps=5"),
        ("http://cam/v?api_token=s3cret", "http", "http://cam/v?api_token=***"),
    ],
)
def test_addresses(url: str, kind: str, name: str) -> None:
    """The address is kept as it is; its name, and the object's own words, hold no credentials."""
    source = parse_source(url)

    assert (source.kind, source.name, source.url) == (kind, name, url)
    for secret in ("s3cret", "p@ss", "p%40ss", "tl1w", "admin"):
        assert secret not in repr(source) and secret not in source.name


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://me:s3cret#1@cam/x",  # an unencoded # ends the host
        "rtsp://me:s3cret/1@cam/x",  # and a slash: the port would be s3cret
        "rtsp://me:s3cret@",
        "rtsp:///stream-s3cret",
        "rtsp://me:s3cret@cam:99999/x",
        "rtsp://[me:s3cret@cam/x",
        "rtsp://me:s3 cret@cam/x",
        "rtsp://me:s3cret@cam/\nx",
        "rtsp:/me:s3cret@cam/x",
        "http:me:s3cret@cam",
        "ftp://me:s3cret@cam/x",
        "tcp://me:s3cret@cam",  # no port
        "me:s3cret@cam/x",
        "s3cret@cam",
    ],
)
def test_a_wrong_address_is_refused_without_its_password(text: str) -> None:
    """For every mistake in an address the message says what is wrong, and nothing that may be secret."""
    with pytest.raises((UsageError, DataError)) as refused:
        parse_source(text)

    assert "s3cret" not in str(refused.value) and "s3 cret" not in str(refused.value)
    assert "expected" in str(refused.value) or "%40" in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", "-", "webcam", "csi:", "csi:x", "csi:10", "CSI", "-1", "256", "99999999999", "usb:1", "/dev/sda", "٣"]
)
def test_an_unknown_source(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Anything else is a usage error that names the kinds, and a missing file is a missing file."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises((UsageError, DataError), match=r"expected csi or csi:1 .*, usb, a number or /dev/videoN"):
        parse_source(text)


def test_files(tmp_path: Path) -> None:
    """An existing file is accepted; whether it is a video shows when it is opened."""
    film, photo = tmp_path / "a film.mp4", tmp_path / "a.JPG"
    film.touch()
    photo.touch()

    source = parse_source(str(film))

    assert source == CameraSource("file", str(film), path=film) and not source.live
    with pytest.raises(DataError, match=r"the video file .*gone\.mp4 does not exist"):
        parse_source(str(tmp_path / "gone.mp4"))
    with pytest.raises(DataError, match=r"the video file gone\.mp4 does not exist"):
        parse_source("gone.mp4")
    with pytest.raises(DataError, match="does not exist"):
        parse_source("x" * 5000 + ".mp4")
    with pytest.raises(UsageError, match=r"is a photograph.*hailo_inference"):
        parse_source(str(photo))
    with pytest.raises(UsageError, match="is not a file"):
        parse_source(str(tmp_path))
    (tmp_path / "data.yaml").touch()
    with pytest.raises(UsageError, match=r"is a text, not a video.*run hailo_inference\.py with a data\.yaml"):
        parse_source(str(tmp_path / "data.yaml"))


def test_exit_codes() -> None:
    """A slip of the flag is 2, a missing file 3."""
    with pytest.raises(UsageError):
        parse_source("webcam")
    with pytest.raises(DataError):
        parse_source("flights/one")


def test_masking_any_text() -> None:
    """Words of a library may hold the address in the middle of a sentence, even twice."""
    text = "cannot open rtsp://me:s3cret@cam/1 (tried http://cam/v?pwd=s3cret and 5 more)"

    assert masked(text) == "cannot open rtsp://***@cam/1 (tried http://cam/v?pwd=*** and 5 more)"
    assert masked("nothing secret: a@b") == "nothing secret: a@b"


URL_SAFE = st.characters(min_codepoint=33, max_codepoint=126)


@given(user=st.text(URL_SAFE, max_size=8), password=st.text(URL_SAFE, min_size=1, max_size=12))
def test_no_password_survives(user: str, password: str) -> None:
    """With any characters, encoded or not, valid or not: what is shown holds no password."""
    marked = f"{password}S3CRET"

    try:
        shown = repr(parse_source(f"rtsp://{user}:{marked}@cam/live"))
    except (UsageError, DataError) as exc:
        shown = str(exc)

    assert "S3CRET" not in shown and "S3CRET" not in masked(f"rtsp://{user}:{marked}@cam/live")


def test_a_login_from_elsewhere() -> None:
    """Percent-encoded into the address, and never shown; two logins, and a password alone, are refused."""
    source = parse_source("rtsp://10.0.0.7:8554/live?x=1")
    known = with_login(source, "me@home", "p/w:%#")
    assert known.url == "rtsp://me%40home:p%2Fw%3A%25%23@10.0.0.7:8554/live?x=1"
    assert known.name == source.name == "rtsp://10.0.0.7:8554/live?x=1" and "p%2Fw" not in repr(known)
    assert with_login(source, "me", None).url == "rtsp://me@10.0.0.7:8554/live?x=1"
    assert with_login(source, None, None) is source
    assert with_login(parse_source("usb"), "me", "pw") == parse_source("usb")

    with pytest.raises(UsageError, match="HEFKIT_CAMERA_PASSWORD is set, but HEFKIT_CAMERA_USERNAME is not"):
        with_login(source, None, "pw")
    with pytest.raises(UsageError, match=r"the source rtsp://\*\*\*@cam/1 has a login") as caught:
        with_login(parse_source("rtsp://me:s3cret@cam/1"), "me", "pw")
    assert "s3cret" not in str(caught.value)
