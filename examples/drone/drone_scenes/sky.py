"""The sky: gradient, glow of the sun, clouds, stars and a moon."""

from __future__ import annotations

import cv2
import numpy as np

from drone_scenes.light import Light, bgr
from drone_scenes.noise import blend, fbm, smoothstep

CLOUDS = ("none", "wisps", "heaps", "cover")


def paint_sky(
    rng: np.random.Generator, size_wh: tuple[int, int], light: Light, horizon: float, clouds: str
) -> np.ndarray:
    """(H, W, 3) float32 BGR; `horizon` is a height in pixels from the top, also one outside the picture."""
    width, height = size_wh
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    up = np.clip((horizon - y) / height, 0, 1.2)  # 0 at the horizon
    picture = blend(bgr(light.horizon), bgr(light.zenith), 1 - np.exp(-2.2 * up)).astype(np.float32)
    sun = np.array([rng.uniform(-0.2, 1.2) * width, horizon - rng.uniform(0.0, 0.7) * height])
    picture = blend(picture, bgr(light.sun), light.glow * np.exp(-np.hypot(x - sun[0], y - sun[1]) / width * 3))
    if light.stars:
        _stars(rng, picture, horizon)
    if clouds != "none":
        cover, shade = _clouds(rng, x, y, horizon, clouds, sun)
        colour = blend(bgr(light.cloud_dark), bgr(light.cloud_lit), shade)
        near_sun = 0.5 * light.glow * np.exp(-np.hypot(x - sun[0], y - sun[1]) / width * 4)
        picture = blend(picture, blend(colour, bgr(light.sun), near_sun), cover)
    if light.stars and rng.random() < 0.3:
        _moon(rng, picture, horizon)
    return picture.astype(np.float32)


def _clouds(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, horizon: float, kind: str, sun: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and brightness, (H, W) each: a flat layer of noise above us, seen in perspective."""
    height, width = x.shape
    distance = 0.16 * height / np.maximum(horizon - y + 0.10 * height, 4)  # of the layer; 1.6 at the horizon
    side = 900
    u = (x - width / 2) / width * distance * 900 + rng.uniform(300, 600)
    v = distance * 420 + rng.uniform(0, 200)
    stretch = {"wisps": (3, 14), "heaps": (9, 7), "cover": (5, 4)}[kind]
    noise = fbm(rng, side, side, stretch, octaves=7, gain=0.55)
    low, high = {"wisps": (0.45, 1.1), "heaps": (0.55, 0.68), "cover": (0.25, 0.6)}[kind]
    density = _seen(noise, u, v)
    toward = np.clip((sun[0] - x) / width * 18, -7, 7)
    beside = _seen(cv2.GaussianBlur(noise, (0, 0), 4), u + toward, v + 5)
    cover = smoothstep(density, low, high) * {"wisps": 0.7, "heaps": 0.97, "cover": 0.9}[kind]
    shade = np.clip(0.62 + 3.0 * (density - beside) - 0.9 * np.clip(density - high, 0, 1), 0, 1)
    fade = smoothstep(horizon - y, 0, 0.12 * height)  # haze hides the far ones
    return (cover * fade).astype(np.float32), shade.astype(np.float32)


def _seen(noise: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return cv2.remap(
        noise, u.astype(np.float32), v.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )


def _stars(rng: np.random.Generator, picture: np.ndarray, horizon: float) -> None:
    height, width = picture.shape[:2]
    for _ in range(int(rng.integers(20, 120))):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        if y < horizon - 0.1 * height:
            picture[y, x] += np.float32(rng.uniform(0.05, 0.5) ** 1.5)


def _moon(rng: np.random.Generator, picture: np.ndarray, horizon: float) -> None:
    height, width = picture.shape[:2]
    radius = rng.uniform(6, 18)
    centre = rng.uniform(0.05, 0.95) * width, rng.uniform(0.05, 0.5) * min(horizon, height)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    away = np.hypot(x - centre[0], y - centre[1])
    bright = np.clip(radius - away + 0.5, 0, 1) * rng.uniform(0.6, 0.9) + 0.25 * np.exp(-away / (2.5 * radius))
    np.maximum(picture, picture + bright[..., None] * bgr([0.8, 0.92, 0.95]), out=picture)
