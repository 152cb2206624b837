"""The land below the sky: hills, rows of trees, houses, fields; and twigs and wires in front of everything."""

from __future__ import annotations

import itertools

import cv2
import numpy as np

from drone_scenes.layers import Canvas, Layer, put
from drone_scenes.light import Colour, Light, as_colour, bgr
from drone_scenes.noise import blend, fbm, ridge


def paint_ground(
    rng: np.random.Generator, picture: np.ndarray, light: Light, horizon: float, features: tuple[str, ...]
) -> None:
    """Draw the land over the sky, in place, from far to near; `features`: hills, town, wood, trees."""
    height = picture.shape[0]
    if horizon > 1.25 * height:
        return
    if "hills" in features:
        _hills(rng, picture, light, horizon)
    if horizon < height:
        _field(rng, picture, light, horizon)
    if "wood" in features:
        _wood(rng, picture, light, horizon)
    if "town" in features:
        _town(rng, picture, light, horizon)
    if "trees" in features:
        for _ in range(int(rng.integers(1, 4))):
            _tree(rng, picture, light, horizon)


def _fill_below(picture: np.ndarray, top: np.ndarray, colour: np.ndarray) -> None:
    """Everything below the outline `top`, (W,) heights from the top edge, with a soft upper edge."""
    y = np.arange(picture.shape[0], dtype=np.float32)[:, None]
    picture[:] = blend(picture, colour, np.clip(y - top[None] + 0.5, 0, 1).astype(np.float32))


def _hills(rng: np.random.Generator, picture: np.ndarray, light: Light, horizon: float) -> None:
    height, width = picture.shape[:2]
    count = int(rng.integers(1, 4))
    for i in range(count):
        tall = height * rng.uniform(0.03, 0.12) * (1 - i / (count + 1))
        top = horizon - tall * (0.3 + 0.7 * ridge(rng, width, rng.uniform(2, 6), 6))
        _fill_below(picture, top, blend(bgr(light.foliage), bgr(light.haze), 0.85 - 0.25 * i))


def _field(rng: np.random.Generator, picture: np.ndarray, light: Light, horizon: float) -> None:
    """A plain in perspective: grass with darker and lighter places, or a paved one."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    depth = np.clip(y - horizon, 0, None) / height
    distance = 1 / (depth + 0.03)
    noise = fbm(rng, 700, 700, (12, 12), octaves=7, gain=0.7)
    u, v = (x - width / 2) / width * distance * 60 + 350, distance * 21
    seen = cv2.remap(noise, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    base = bgr(light.grass) if rng.random() < 0.7 else bgr(light.wall) * 0.7
    colour = blend(base * 0.68, base * 1.12, seen)
    colour = blend(colour, bgr(light.haze), (0.7 * np.exp(-20 * depth)).astype(np.float32))
    picture[:] = blend(picture, colour, np.clip(y - horizon + 0.5, 0, 1).astype(np.float32))


def _wood(rng: np.random.Generator, picture: np.ndarray, light: Light, horizon: float) -> None:
    """A dark band of treetops along the horizon."""
    height, width = picture.shape[:2]
    tall = height * rng.uniform(0.03, 0.14)
    top = horizon - tall * (0.35 + 0.4 * ridge(rng, width, 5, 3) + 0.25 * ridge(rng, width, width / 9, 3, 0.7))
    low = horizon + tall * 0.15
    y = np.arange(height, dtype=np.float32)[:, None]
    inside = np.clip(y - top[None] + 0.5, 0, 1) * np.clip(low - y + 0.5, 0, 1)
    leaves = fbm(rng, height, width, (height / 7, width / 7), octaves=3, gain=0.8)
    lit = np.clip(0.55 + 0.5 * (leaves - 0.5) - 0.35 * np.clip((y - top[None]) / tall, 0, 1), 0, 1)
    dark, bright = bgr(light.foliage) * 0.5, bgr(light.foliage) * (0.8 + light.direct)
    colour = blend(blend(dark, bright, lit.astype(np.float32)), bgr(light.haze), rng.uniform(0.05, 0.4))
    picture[:] = blend(picture, colour, inside.astype(np.float32))


def _town(rng: np.random.Generator, picture: np.ndarray, light: Light, horizon: float) -> None:
    """Houses side by side, the far ones first and paler."""
    height, width = picture.shape[:2]
    for row, (tall, pale) in enumerate(((0.16, 0.45), (0.24, 0.12))[int(rng.integers(0, 2)) :]):
        x = -rng.uniform(0, 60)
        while x < width:
            wide = rng.uniform(25, 90) * (1 + 0.6 * row)
            if rng.random() < (0.85 if row == 0 else 0.45):
                roof = horizon - height * tall * rng.uniform(0.25, 1.0)
                _house(rng, picture, light, (x, roof, x + wide, horizon + 6 + 14 * row), pale)
            x += wide * rng.uniform(1.0, 1.25)


def _house(
    rng: np.random.Generator, picture: np.ndarray, light: Light, place: tuple[float, float, float, float], pale: float
) -> None:
    """One front: a wall shaded to one side, rows of windows, something on the roof."""
    x1, y1, x2, y2 = (round(v) for v in place)
    bright = (light.ambient + light.direct * rng.uniform(0.2, 1.0)) * rng.uniform(0.7, 1.2)
    tint = bgr(light.wall) * (1 if light.thermal else rng.uniform(0.85, 1.15, 3)) * min(bright, 1.1)
    wall = blend(tint.astype(np.float32), bgr(light.haze), pale)
    cv2.rectangle(picture, (x1, y1), (x2, y2), wall.tolist(), cv2.FILLED)
    if rng.random() < 0.5:
        side = x1 + round((x2 - x1) * rng.uniform(0.6, 0.8))
        cv2.rectangle(picture, (side, y1), (x2, y2), (wall * 0.8).tolist(), cv2.FILLED)
    if rng.random() < 0.3:
        mast = int(rng.integers(x1, x2 + 1))
        cv2.line(picture, (mast, y1), (mast, y1 - int(rng.integers(4, 22))), (wall * 0.6).tolist(), 1)
    glass = blend(bgr(light.window if light.lit_windows == 0 else light.zenith), wall, 0.45) * 0.9
    _windows(rng, picture, light, (x1, y1, x2, y2), glass.tolist(), blend(bgr(light.window), wall, pale / 2))


def _windows(
    rng: np.random.Generator,
    picture: np.ndarray,
    light: Light,
    place: tuple[int, int, int, int],
    dark: list[float],
    lit: np.ndarray,
) -> None:
    x1, y1, x2, y2 = place
    wide, tall = int(rng.integers(2, 6)), int(rng.integers(3, 7))
    step_x, step_y = wide + int(rng.integers(3, 7)), tall + int(rng.integers(4, 8))
    for y in range(y1 + 4, y2 - tall - 2, step_y):
        for x in range(x1 + 3, x2 - wide - 1, step_x):
            colour = (lit * rng.uniform(0.7, 1.1)).tolist() if rng.random() < light.lit_windows else dark
            cv2.rectangle(picture, (x, y), (x + wide - 1, y + tall - 1), colour, cv2.FILLED)


def _tree(rng: np.random.Generator, picture: np.ndarray, light: Light, horizon: float) -> None:
    """A tree near by: trunk, and a crown of leaves that are brighter towards the light."""
    height, width = picture.shape[:2]
    tall = height * rng.uniform(0.18, 0.5)
    foot = np.array([rng.uniform(-0.05, 1.05) * width, min(horizon + rng.uniform(0.02, 0.2) * height, height + 40)])
    side = int(1.5 * tall)
    canvas = Canvas(side, side, 1)
    middle = np.array([side / 2, side - 2.0])
    bark = as_colour(bgr(light.foliage) * (0.9 if light.thermal else 0.6))
    canvas.line(middle, middle - [0, 0.6 * tall], max(tall * 0.035, 1.5), bark)
    crown = np.stack([rng.normal(0, 0.15, 12), rng.uniform(0.42, 0.9, 12)], 1)
    for across, up in crown[np.argsort(crown[:, 1])]:
        radius = tall * rng.uniform(0.1, 0.17) * (1.15 - 0.5 * abs(up - 0.6))
        _leaves(rng, canvas, middle + np.array([across, -up]) * tall, radius, light)
    put(picture, canvas.layer(round(foot[0] - side / 2), round(foot[1] - side)))


def _leaves(
    rng: np.random.Generator, canvas: Canvas, centre: np.ndarray, radius: float, light: Light, count: int = 260
) -> None:
    """Patches of leaves over a ball, lower ones first."""
    reach, angle = np.sqrt(rng.random(count)), rng.uniform(0, 2 * np.pi, count)
    spots = np.stack([reach * np.cos(angle), reach * np.sin(angle)], 1)
    spots = spots[np.argsort(-spots[:, 1])]
    size = max(radius * 0.09, 1.0)
    for spot in spots:
        lit = light.ambient + light.direct * np.clip(0.4 - 0.6 * spot[1] - 0.25 * spot[0], 0, 1.2)
        shade = float(np.clip(lit * rng.uniform(0.75, 1.3), 0, 1.6))
        colour = as_colour(np.clip(bgr(light.foliage) * (shade + 0.35), 0, 1))
        at = centre + spot * radius
        turn = rng.uniform(0, np.pi, 5) + np.arange(5)
        blob = at + np.stack([np.cos(turn), np.sin(turn)], 1) * size * rng.uniform(0.6, 1.4, (5, 1))
        canvas.polygon(blob, colour, 0.95)


def foreground(rng: np.random.Generator, size_wh: tuple[int, int], light: Light, kind: str) -> Layer:
    """Wires or a twig right in front of the camera, as large as the picture."""
    width, height = size_wh
    canvas = Canvas(width, height, 2)
    dark = as_colour(bgr(light.foliage) * (0.9 if light.thermal else 0.35))
    if kind == "wires":
        _wires(rng, canvas, size_wh, dark)
    else:
        _twig(rng, canvas, size_wh, dark, light)
    return canvas.layer(0, 0, blur=0.7)


def _wires(rng: np.random.Generator, canvas: Canvas, size_wh: tuple[int, int], colour: Colour) -> None:
    width, height = size_wh
    start, end, sag = rng.uniform(0.1, 0.8) * height, rng.uniform(0.1, 0.8) * height, rng.uniform(0.02, 0.12) * height
    t = np.linspace(0, 1, 25)
    for i in range(int(rng.integers(1, 4))):
        y = start + (end - start) * t + sag * 4 * t * (1 - t) + i * 0.05 * height
        points = np.stack([t * width, y], 1)
        for a, b in itertools.pairwise(points):
            canvas.line(a, b, 1.3, colour)


def _twig(rng: np.random.Generator, canvas: Canvas, size_wh: tuple[int, int], colour: Colour, light: Light) -> None:
    width, height = size_wh
    left = rng.random() < 0.5
    at = np.array([0.0 if left else width, rng.uniform(0.0, 0.6) * height])
    heading, thick = (0.0 if left else np.pi) + rng.normal(0, 0.3), rng.uniform(3, 6)
    for _ in range(int(rng.integers(5, 9))):
        heading += rng.normal(0, 0.25)
        end = at + np.array([np.cos(heading), np.sin(heading)]) * rng.uniform(18, 45)
        canvas.line(at, end, thick, colour)
        _leaves(rng, canvas, end, rng.uniform(22, 40), light, 35)
        at, thick = end, max(thick * 0.8, 1.2)
