"""One photograph -> upright pixels, or the reason why not."""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hefkit.pictures import frames, header, read
from hefkit.pictures.header import UnreadableImage
from hefkit.pictures.read import decode_image, read_image
from hefkit.pictures.sources import find_items
from tests.helpers.pictures import UPRIGHT, encode, exif, noise, quadrants, tiff, with_exif, write

LOSSLESS_WEBP = (cv2.IMWRITE_WEBP_QUALITY, 101)
PICTURE = quadrants()
NOISE = np.random.default_rng(1).integers(0, 256, (13, 17, 3), np.uint8)
NOISE16 = np.random.default_rng(2).integers(0, 65536, (13, 17, 3), np.uint16)

# kind -> a file of this kind with an orientation in this byte order
ORIENTED: dict[str, Callable[[int, str], bytes]] = {
    "jpeg": lambda o, order: with_exif(encode(PICTURE, ".jpg"), exif(o, order)),
    "png": lambda o, order: with_exif(encode(PICTURE, ".png"), exif(o, order)),
    "webp": lambda o, order: with_exif(encode(PICTURE, ".webp"), exif(o, order)),
    "webp lossless": lambda o, order: with_exif(encode(PICTURE, ".webp", *LOSSLESS_WEBP), exif(o, order)),
    "webp with the JPEG prefix": lambda o, order: with_exif(encode(PICTURE, ".webp"), b"Exif\0\0" + exif(o, order)),
    "tiff": lambda o, order: tiff(PICTURE, o, order),
    "tiff 16 bit": lambda o, order: tiff(PICTURE.astype(np.uint16) * 257, o, order),
    "bigtiff": lambda o, order: tiff(PICTURE, o, order, big=True),
}


def grey(picture: np.ndarray) -> np.ndarray:
    """(h, w) -> (h, w, 3)"""
    return np.repeat(picture[..., None], 3, axis=2)


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, colour_type: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG of 8 bits a sample, by hand."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + extra
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def reason(data: bytes) -> str:
    """Why these bytes give no picture."""
    with pytest.raises(UnreadableImage) as caught:
        decode_image(data)
    return str(caught.value)


@pytest.mark.parametrize("order", ["<", ">"], ids=["II", "MM"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ORIENTED)
def test_every_orientation_is_made_upright(kind: str, orientation: int, order: str) -> None:
    """The pixels are turned once, never twice, whatever this OpenCV would have done by itself."""
    picture = decode_image(ORIENTED[kind](orientation, order))

    expected = UPRIGHT[orientation](PICTURE)
    assert picture.shape == expected.shape
    assert picture.dtype == np.uint8
    assert picture.flags["C_CONTIGUOUS"]
    # JPEG and WebP blur the edges between the quadrants; a wrong turn differs by far more
    assert np.abs(picture.astype(int) - expected).mean() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("rows", [1, 7, 13, 20])
def test_turned_in_bands(monkeypatch: pytest.MonkeyPatch, orientation: int, rows: int) -> None:
    """However many rows are turned at once, no pixel changes its value."""
    monkeypatch.setattr(read, "BAND", rows)

    picture = decode_image(with_exif(encode(NOISE, ".png"), exif(orientation)))

    np.testing.assert_array_equal(picture, UPRIGHT[orientation](NOISE))


@pytest.mark.parametrize("kind", ORIENTED)
@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_impossible_orientation_is_upright(kind: str, orientation: int) -> None:
    """Values outside 1 to 8 are ignored."""
    assert decode_image(ORIENTED[kind](orientation, "<")).shape == PICTURE.shape


@pytest.mark.parametrize(
    "block",
    {
        "empty": b"",
        "one letter": b"I",
        "no directory": exif(6)[:8],
        "directory cut off": exif(6)[:15],
        "value cut off": exif(6)[:18],
        "wrong byte order": b"XX" + exif(6)[2:],
        "directory at 0": exif(6)[:4] + bytes(4) + exif(6)[8:],
        "directory far outside": exif(6)[:4] + b"\xff\xff\xff\xff" + exif(6)[8:],
        "65535 entries": exif(6)[:8] + b"\xff\xff" + bytes(12) * 30,
        "orientation as text": exif(6)[:12] + b"\x02\x00" + exif(6)[14:],
        "two orientations in one entry": exif(6)[:14] + b"\x02\0\0\0" + exif(6)[18:],
        "BigTIFF far outside": b"II+\0\x08\0\0\0" + b"\xff" * 8,
        "BigTIFF with 2**64 entries": b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0" + b"\xff" * 8 + bytes(200),
    }.items(),
    ids=lambda row: row[0],
)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_malformed_exif_is_upright(suffix: str, block: tuple[str, bytes]) -> None:
    """A photograph with broken EXIF is still read."""
    assert decode_image(with_exif(encode(PICTURE, suffix), block[1])).shape == PICTURE.shape


def test_long_orientation_is_read_in_its_own_byte_order() -> None:
    """Some writers store the orientation as LONG: in MM the 6 is then the last of four bytes."""
    block = b"MM" + struct.pack(">HIHHHIII", 42, 8, 1, 274, 4, 1, 6, 0)

    assert decode_image(with_exif(encode(PICTURE, ".png"), block)).shape == (48, 32, 3)


def test_only_the_photograph_s_own_exif_counts() -> None:
    """XMP shares the marker APP1, and the first EXIF block wins."""
    xmp = b"http://ns.adobe.com/xap/1.0/\0" + exif(3)
    twice = with_exif(with_exif(encode(PICTURE, ".jpg"), exif(3)), exif(6))
    with_xmp = twice[:2] + b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp + twice[2:]

    assert decode_image(with_xmp).shape == (48, 32, 3)


@given(st.binary(max_size=80))
@settings(max_examples=200)
def test_no_exif_block_crashes(block: bytes) -> None:
    """Any content of the block gives a picture, upright or turned."""
    whole = with_exif(encode(PICTURE, ".png"), b"II*\0" + block)

    assert decode_image(whole).shape in ((32, 48, 3), (48, 32, 3))


@given(
    kind=st.sampled_from(sorted(ORIENTED)),
    changes=st.lists(st.tuples(st.integers(0, 150), st.integers(0, 255)), min_size=1, max_size=4),
)
@settings(max_examples=200, deadline=None)
def test_no_damage_crashes(kind: str, changes: list[tuple[int, int]]) -> None:
    """Bytes changed in the headers end in a picture or in UnreadableImage, nothing else."""
    data = bytearray(ORIENTED[kind](6, "<"))
    for at, value in changes:
        data[at % len(data)] = value

    try:
        picture = decode_image(bytes(data))
    except UnreadableImage as exc:
        assert str(exc)
    else:
        assert picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8


PALETTE = np.array([[0, 0, 255], [0, 255, 0], [255, 0, 0], [9, 8, 7]], np.uint8)  # BGR
INDEX = np.random.default_rng(3).integers(0, 4, (10, 12), np.uint8)
ROWS = b"".join(b"\0" + row.tobytes() for row in INDEX)
PLTE = png_chunk(b"PLTE", PALETTE[:, ::-1].tobytes())
OPAQUE = np.full((13, 17, 1), 255, np.uint8)

# a file, what it shows, by how much the decoder may round
COLOURS = {
    "png": (encode(NOISE, ".png"), NOISE, 0),
    "png grey": (encode(NOISE[..., 0], ".png"), grey(NOISE[..., 0]), 0),
    "png with alpha": (encode(np.dstack([NOISE, NOISE[..., 0]]), ".png"), NOISE, 0),
    "png 16 bit": (encode(NOISE16, ".png"), (NOISE16 >> 8).astype(np.uint8), 0),
    "png 16 bit grey": (encode(NOISE16[..., 0], ".png"), grey((NOISE16[..., 0] >> 8).astype(np.uint8)), 0),
    "png 16 bit with alpha": (
        encode(np.dstack([NOISE16, NOISE16[..., 0]]), ".png"),
        (NOISE16 >> 8).astype(np.uint8),
        0,
    ),
    "png palette": (png(12, 10, 3, ROWS, PLTE), PALETTE[INDEX], 0),
    "png palette with transparency": (
        png(12, 10, 3, ROWS, PLTE + png_chunk(b"tRNS", b"\0\x80")),
        PALETTE[INDEX],
        0,
    ),
    "webp": (encode(NOISE, ".webp", *LOSSLESS_WEBP), NOISE, 0),
    "webp with alpha": (encode(np.dstack([NOISE, OPAQUE - 1]), ".webp", *LOSSLESS_WEBP), NOISE, 0),
    "tiff": (tiff(NOISE), NOISE, 0),
    "tiff as OpenCV packs it": (encode(NOISE, ".tiff"), NOISE, 0),
    "tiff grey": (tiff(NOISE[..., 0]), grey(NOISE[..., 0]), 0),
    "tiff 16 bit MM": (tiff(NOISE16, order=">"), (NOISE16 >> 8).astype(np.uint8), 1),  # libtiff divides by 257
    "tiff 16 bit grey": (tiff(NOISE16[..., 0].copy()), grey((NOISE16[..., 0] >> 8).astype(np.uint8)), 1),
    "bmp": (encode(NOISE, ".bmp"), NOISE, 0),
    "ppm": (encode(NOISE, ".ppm"), NOISE, 0),
    "pgm": (encode(NOISE[..., 0], ".pgm"), grey(NOISE[..., 0]), 0),
}


@pytest.mark.parametrize("data, expected, tolerance", COLOURS.values(), ids=COLOURS.keys())
def test_colours(data: bytes, expected: np.ndarray, tolerance: int) -> None:
    """Every kind of file comes out as BGR bytes: alpha dropped, 16 bits scaled and not wrapped."""
    picture = decode_image(data)

    assert picture.dtype == np.uint8
    assert picture.shape == expected.shape
    assert np.abs(picture.astype(int) - expected).max() <= tolerance


SMOOTH = noise(300, 200)
JPEG = encode(SMOOTH, ".jpg")
PROGRESSIVE = encode(SMOOTH, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
RESTARTS = encode(SMOOTH, ".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
WITH_THUMBNAIL = with_exif(JPEG, exif(1) + encode(noise(40, 30), ".jpg"))  # its FFD9 lies inside APP1
FILLED = JPEG[:2] + b"\xff\xff\xff" + JPEG[2:]  # FF may be repeated before any marker
CUTTABLE = {
    "jpeg": JPEG,
    "jpeg progressive": PROGRESSIVE,
    "jpeg with restart markers": RESTARTS,
    "jpeg with a thumbnail": WITH_THUMBNAIL,
    "jpeg with filling": FILLED,
    "png": encode(SMOOTH, ".png"),
    "webp": encode(SMOOTH, ".webp"),
    "tiff": encode(SMOOTH, ".tiff"),
    "bmp": encode(SMOOTH, ".bmp"),
    "ppm": encode(SMOOTH, ".ppm"),
}


@pytest.mark.parametrize("data", CUTTABLE.values(), ids=CUTTABLE.keys())
@pytest.mark.parametrize("keep", ["two bytes less", "most", "half", "the header"])
def test_a_cut_off_file_is_refused(data: bytes, keep: str) -> None:
    """An interrupted copy never becomes half a photograph."""
    length = {"two bytes less": len(data) - 2, "most": len(data) * 9 // 10, "half": len(data) // 2, "the header": 24}

    assert reason(data[: length[keep]])


@pytest.mark.parametrize("data", CUTTABLE.values(), ids=CUTTABLE.keys())
@pytest.mark.parametrize("trailer", [b"", b"\0" * 100, b"SEFT\xff\xd8\xff\xe1"], ids=["none", "zeros", "a maker's"])
def test_the_whole_file_is_accepted(data: bytes, trailer: bytes) -> None:
    """Complete files are read, also with bytes behind their end, as phones write them."""
    picture = decode_image(data + trailer)

    assert picture.shape == SMOOTH.shape
    assert np.abs(picture.astype(int) - SMOOTH).mean() < 4


def test_a_second_picture_behind_the_first_is_not_shown() -> None:
    """MPO and motion photos hold more than one JPEG; the first one is the photograph."""
    np.testing.assert_array_equal(decode_image(JPEG + encode(noise(40, 30), ".jpg")), decode_image(JPEG))


def ftyp(brand: bytes) -> bytes:
    return struct.pack(">I", 24) + b"ftyp" + brand + bytes(12)


REASONS = {
    "empty": (b"", "empty"),
    "text": (b"hello, I am no picture", "not a JPEG"),
    "web page": (b"<!DOCTYPE html><html>404</html>", "web page"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
    "gif": (b"GIF89a" + bytes(40), "GIF"),
    "heic": (ftyp(b"heic"), "convert it to JPEG"),
    "heif": (ftyp(b"mif1"), "convert it to JPEG"),
    "avif": (ftyp(b"avif"), "convert it to JPEG"),
    "video": (ftyp(b"isom"), "video"),
    "sound": (b"RIFF\x24\0\0\0WAVEfmt ", "without a WebP picture"),
    "animation": (
        with_exif(encode(PICTURE, ".webp"), b"").replace(b"VP8X\x0a\0\0\0\x08", b"VP8X\x0a\0\0\0\x0a"),
        "anim",
    ),
    "float tiff": (tiff(NOISE.astype(np.float32)), "8 or 16 bits"),
    "huge png": (png(60000, 60000, 0, b"\0"), "60000 x 60000"),
    "huge jpeg": (JPEG.replace(struct.pack(">HH", 200, 300), b"\xff\xfe\xff\xfe", 1), "65534 x 65534"),
    "huge tiff": (
        tiff(NOISE).replace(struct.pack("<HHII", 256, 4, 1, 17), struct.pack("<HHII", 256, 4, 1, 1 << 30)),
        "1073741824",
    ),
    "huge bmp": (
        encode(NOISE, ".bmp").replace(struct.pack("<ii", 17, 13), struct.pack("<ii", 1 << 20, -(1 << 20))),
        "1048576",
    ),
    "wide png": (png(1 << 21, 1, 0, b"\0"), "damaged"),
    "damaged png": (encode(PICTURE, ".png")[:60] + b"\x55\x55\x55" + encode(PICTURE, ".png")[63:], "damaged"),
    "bare jpeg markers": (b"\xff\xd8\xff\xd9", "damaged"),
    "tiny bmp": (b"BM123", "BMP"),
    "tiny tiff": (b"II*\0", "damaged"),
}


@pytest.mark.parametrize("data, words", REASONS.values(), ids=REASONS.keys())
def test_the_reason_helps(data: bytes, words: str) -> None:
    """An error says in one short line why a file is refused."""
    told = reason(data)

    assert words in told
    assert "\n" not in told and len(told) < 200


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    """A folder, a pipe, a missing file and an impossible name are reasons, not crashes, and never a hang."""
    os.mkfifo(tmp_path / "pipe.jpg")

    for path, words in (
        (tmp_path, "folder"),
        (tmp_path / "pipe.jpg", "regular"),
        (tmp_path / "no.jpg", "no such file"),
        ("nul\0.jpg", "possible"),
        (tmp_path / ("x" * 300), "too long"),
    ):
        with pytest.raises(UnreadableImage, match=words):
            read_image(path)


def test_names_may_be_in_any_script(tmp_path: Path) -> None:
    """OpenCV's own reader has trouble with such names on some systems; ours never sees the name."""
    path = write(tmp_path / "foto größe 写真.png", NOISE)

    np.testing.assert_array_equal(read_image(path), NOISE)


def test_real_photographs_look_as_opencv_shows_them(shared: Path) -> None:
    """Without an EXIF orientation the pixels are those that OpenCV reads."""
    for path in sorted((shared / "images").glob("*.jpg"), key=lambda p: p.stat().st_size)[:6]:
        np.testing.assert_array_equal(read_image(path), cv2.imread(str(path), cv2.IMREAD_COLOR))


def jpeg_header(width: int, height: int) -> bytes:
    """A JPEG that claims a size and holds nothing."""
    frame = b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", height, width) + b"\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01"
    return b"\xff\xd8" + frame + b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00" + bytes(900) + b"\xff\xd9"


def test_a_jpeg_that_claims_more_than_it_can_hold() -> None:
    """1 KB for 268 million pixels: OpenCV would return a grey picture of 800 MB."""
    with pytest.raises(UnreadableImage, match="bytes cannot hold the 16384 x 16384 pixels"):
        decode_image(jpeg_header(16384, 16384))
    grey = cv2.imencode(".jpg", np.full((4096, 4096, 3), 128, np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1]
    assert decode_image(grey.tobytes()).shape == (4096, 4096, 3)  # the smallest that an encoder makes


def test_a_jpeg_of_thousands_of_scans() -> None:
    """Each is a pass over the whole picture."""
    good = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    scan = good[good.rindex(b"\xff\xda") : -2]

    assert decode_image(good).shape == (64, 64, 3)
    with pytest.raises(UnreadableImage, match="more than 100 scans"):
        decode_image(good[:-2] + scan * 3000 + good[-2:])


def test_a_picture_that_needs_more_memory_than_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large one is refused in a sentence before OpenCV takes the memory; a small one is not even asked about."""
    data = encode(noise(64, 64), ".png")
    monkeypatch.setattr(read, "available_memory", lambda: 20_000)
    assert decode_image(data).shape == (64, 64, 3)

    monkeypatch.setattr(header, "LARGE_PIXELS", 100)
    with pytest.raises(UnreadableImage, match=r"64 x 64 pixels need about 0\.0 GB of memory, and 0\.0 GB are free"):
        decode_image(data)
    for free in (64 * 64 * header.PLAIN, None):
        monkeypatch.setattr(read, "available_memory", lambda free=free: free)
        assert decode_image(data).shape == (64, 64, 3)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode(noise(50, 70), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1), id="progressive"),
        pytest.param(encode(noise(50, 70), ".png"), id="png"),
        pytest.param(encode(noise(50, 70), ".webp", cv2.IMWRITE_WEBP_QUALITY, 80), id="webp"),
        pytest.param(encode(noise(50, 70), ".webp", *LOSSLESS_WEBP), id="lossless webp"),
        pytest.param(encode(np.dstack([noise(50, 70), noise(50, 70)[..., 0]]), ".webp"), id="webp with alpha"),
        pytest.param(with_exif(encode(noise(50, 70), ".webp"), exif(1)), id="webp with exif"),
        pytest.param(encode(noise(50, 70), ".tiff"), id="tiff"),
        pytest.param(tiff(noise(50, 70), 1, "<", big=True), id="bigtiff"),
        pytest.param(encode(noise(50, 70), ".bmp"), id="bmp"),
        pytest.param(encode(noise(50, 70), ".ppm"), id="ppm"),
        pytest.param(encode(noise(50, 70), ".ppm").replace(b"P6", b"P6 # 9 9\n# 8 8", 1), id="ppm with comments"),
        pytest.param(encode(noise(50, 70)[..., 0], ".pgm"), id="pgm"),
    ],
)
def test_every_header_says_its_size(data: bytes) -> None:
    """Before OpenCV sees the file: it allocates what a header claims."""
    found = header.checked_header(data)

    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert (found.height, found.width, 3) == stored.shape
    assert found.decoded_bytes == stored.nbytes and found.decoding_bytes >= 2 * stored.nbytes


@pytest.mark.parametrize(
    "data", [b"P5\n60000 60000\n255\n", b"P4 32769 32769\n", tiff(NOISE).replace(struct.pack("<H", 256), b"\0\0", 1)]
)
def test_a_size_that_is_too_large_or_missing(data: bytes) -> None:
    """A file of a few bytes is refused by its header."""
    with pytest.raises(UnreadableImage, match=r"at most 268 million|does not say its size"):
        decode_image(data)


def test_a_slow_consumer_holds_the_readers_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond HELD_BYTES in memory no picture is decoded until a frame is done; the order stays."""
    monkeypatch.setattr(frames, "HELD_BYTES", 1000)
    for number in range(12):
        side = 8 if number % 3 else 64
        (tmp_path / f"{number:02d}.png").write_bytes(encode(noise(side, side, seed=number), ".png"))
    (tmp_path / "04.png").write_bytes(b"no picture")
    decoded: list[int] = []
    decode = frames.decode
    monkeypatch.setattr(frames, "decode", lambda header: decoded.append(header.decoded_bytes) or decode(header))

    taken: list[int] = []
    for frame in frames.read_photographs(find_items(str(tmp_path)), readers=4):
        taken.append(frame.index)
        time.sleep(0.005)
        if frame.index % 3 == 0:  # a large one, which is not done
            assert sum(size > 1000 for size in decoded) == frame.index // 3 + 1
        frame.done()

    assert taken == list(range(12))
    stopped = frames.read_photographs(find_items(str(tmp_path)), readers=4)
    next(stopped)
    stopped.close()  # leaves no thread that waits for its turn
