"""The colours of each time of day. BGR float 0..1 throughout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Light:
    """The colours of one kind of weather; a thermal camera is one more kind, in greys."""

    zenith: Colour
    horizon: Colour
    sun: Colour  # of the glow around it
    glow: float  # how much of it, 0..1
    cloud_lit: Colour
    cloud_dark: Colour
    haze: Colour  # what the distance fades to
    foliage: Colour
    grass: Colour
    wall: Colour
    window: Colour  # one that is lit
    lit_windows: float  # share of them
    ambient: float  # brightness of what the sun does not reach
    direct: float  # what the sun adds
    stars: bool = False
    thermal: bool = False


def rgb(code: int) -> Colour:
    """0xRRGGBB -> BGR 0..1."""
    return (code & 255) / 255, (code >> 8 & 255) / 255, (code >> 16) / 255


def grey(value: float) -> Colour:
    """The same in all three channels."""
    return value, value, value


def bgr(colour: Colour | list[float]) -> np.ndarray:
    """(3,) float32, for arithmetic."""
    return np.array(colour, np.float32)


def as_colour(values: np.ndarray) -> Colour:
    """(3,) -> a colour, within 0..1."""
    blue, green, red = np.clip(values, 0, 1).tolist()
    return blue, green, red


LIGHTS = {
    "clear": Light(
        zenith=rgb(0x2F6DB8), horizon=rgb(0xBBD6EA), sun=rgb(0xFFF6DC), glow=0.35, cloud_lit=rgb(0xFFFFFF),
        cloud_dark=rgb(0xA9B7C8), haze=rgb(0xB4CBDD), foliage=rgb(0x4B6B32), grass=rgb(0x7D8F4E), wall=rgb(0xB9AFA2),
        window=rgb(0x6E8294), lit_windows=0.0, ambient=0.45, direct=0.6,
    ),
    "hazy": Light(
        zenith=rgb(0x8FAFC9), horizon=rgb(0xDDE0DA), sun=rgb(0xFFF3D6), glow=0.5, cloud_lit=rgb(0xF4F4F0),
        cloud_dark=rgb(0xBFC6C9), haze=rgb(0xD3D8D6), foliage=rgb(0x5E7449), grass=rgb(0x98A06C), wall=rgb(0xBDB7AE),
        window=rgb(0x8A979F), lit_windows=0.0, ambient=0.5, direct=0.35,
    ),
    "overcast": Light(
        zenith=rgb(0x8B939C), horizon=rgb(0xC9CDD0), sun=rgb(0xE8E8E8), glow=0.1, cloud_lit=rgb(0xD9DCDF),
        cloud_dark=rgb(0x6F7881), haze=rgb(0xBDC2C5), foliage=rgb(0x3F5335), grass=rgb(0x6B7650), wall=rgb(0x97928C),
        window=rgb(0xE8C98A), lit_windows=0.12, ambient=0.5, direct=0.15,
    ),
    "golden": Light(
        zenith=rgb(0x5B86B4), horizon=rgb(0xF4C98C), sun=rgb(0xFFC062), glow=0.8, cloud_lit=rgb(0xFFDDA8),
        cloud_dark=rgb(0x9A8794), haze=rgb(0xE5BC8E), foliage=rgb(0x5B5A2B), grass=rgb(0x9A8644), wall=rgb(0xC49A72),
        window=rgb(0xFFD98E), lit_windows=0.15, ambient=0.3, direct=0.6,
    ),
    "dusk": Light(
        zenith=rgb(0x26345E), horizon=rgb(0xE08A5B), sun=rgb(0xFF9A4A), glow=0.7, cloud_lit=rgb(0xE59A7C),
        cloud_dark=rgb(0x4C4564), haze=rgb(0x8F6B73), foliage=rgb(0x23291F), grass=rgb(0x35372D), wall=rgb(0x4B4550),
        window=rgb(0xFFCE79), lit_windows=0.4, ambient=0.14, direct=0.18,
    ),
    "night": Light(
        zenith=rgb(0x0B1226), horizon=rgb(0x3A3D52), sun=rgb(0xD8E2FF), glow=0.12, cloud_lit=rgb(0x4A4E60),
        cloud_dark=rgb(0x171D30), haze=rgb(0x2C3044), foliage=rgb(0x0D130F), grass=rgb(0x161B18), wall=rgb(0x24262F),
        window=rgb(0xFFCB7A), lit_windows=0.35, ambient=0.12, direct=0.12, stars=True,
    ),
    "thermal": Light(
        zenith=grey(0.10), horizon=grey(0.34), sun=grey(0.5), glow=0.1, cloud_lit=grey(0.36), cloud_dark=grey(0.22),
        haze=grey(0.38), foliage=grey(0.42), grass=grey(0.48), wall=grey(0.52), window=grey(0.8), lit_windows=0.25,
        ambient=0.85, direct=0.15, thermal=True,
    ),
}  # fmt: skip


def varied(light: Light, rng: np.random.Generator) -> Light:
    """The same weather on another day: every colour a little different."""

    def other(colour: Colour) -> Colour:
        tint = rng.normal(0, 0.0 if light.thermal else 0.02, 3) + rng.normal(0, 0.03)
        return as_colour(np.array(colour) * (1 + tint) + tint / 4)

    colours = {name: other(value) for name, value in vars(light).items() if isinstance(value, tuple)}
    return Light(**{**vars(light), **colours})
