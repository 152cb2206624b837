"""Objects that fly or shine but are not drones: a detector must learn to ignore them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from drone_scenes.layers import Canvas, Layer
from drone_scenes.light import Colour, Light, as_colour

Draw = Callable[[np.random.Generator, Canvas, np.ndarray, float, Light], None]


def draw_other(
    rng: np.random.Generator,
    kind: str,
    light: Light,
    size: float,
    centre: tuple[float, float],
    blur: float,
    foot: float,
) -> Layer:
    """One of OTHERS, about `size` pixels wide; a lamp's post ends at `foot`, pixels from the top of the picture."""
    reach = size * 0.75 + 3 * blur + 3
    left, top, side = int(centre[0] - reach), int(centre[1] - reach), int(2 * reach) + 2
    tall = max(int(foot) - top, side) if kind == "lamp" else side
    canvas = Canvas(side, tall, int(np.clip(256 // side, 2, 8)))
    OTHERS[kind](rng, canvas, np.array(centre) - [left, top], size, light)
    return canvas.layer(left, top, blur=blur)


def _dark(light: Light, colour: Colour, warm: float) -> Colour:
    """A colour under this light; `warm` is its grey for a thermal camera."""
    if light.thermal:
        return warm, warm, warm
    return as_colour(np.array(colour) * (light.ambient + 0.5 * light.direct))


def _bird(rng: np.random.Generator, canvas: Canvas, centre: np.ndarray, size: float, light: Light) -> None:
    """Body, tail and two bent wings at some moment of their beat, in any direction."""
    feathers = ((0.12, 0.13, 0.14), (0.30, 0.33, 0.36), (0.85, 0.86, 0.86))[int(rng.integers(3))]
    colour = _dark(light, feathers, 0.58)
    beat, bank = rng.uniform(-0.5, 0.75), rng.normal(0, 0.35)
    foreshortened = rng.uniform(0.35, 1.0)
    turn = np.array([[np.cos(bank), -np.sin(bank)], [np.sin(bank), np.cos(bank)]])

    def at(*points: tuple[float, float]) -> np.ndarray:
        return centre + (np.array(points) * [size / 2, size / 2]) @ turn.T

    length = 0.42 * foreshortened
    canvas.polygon(at((-0.07, -length), (0.07, -length), (0.1, 0), (0.04, length), (-0.04, length), (-0.1, 0)), colour)
    for side in (-1, 1):
        elbow, tip = (side * 0.45, -beat * 0.55), (side * 0.98, -beat * 0.55 + rng.uniform(-0.1, 0.35))
        chord = 0.26 * foreshortened
        canvas.polygon(at((0, -0.6 * chord), elbow, tip, (elbow[0], elbow[1] + chord), (0, 0.8 * chord)), colour)


def _aeroplane(rng: np.random.Generator, canvas: Canvas, centre: np.ndarray, size: float, light: Light) -> None:
    """An airliner from below or the side, sometimes with a trail."""
    colour = _dark(light, ((0.82, 0.82, 0.8), (0.45, 0.45, 0.44))[int(rng.integers(2))], 0.42)
    heading, squeeze = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 1.0)
    turn = np.array([[np.cos(heading), -np.sin(heading)], [np.sin(heading), np.cos(heading)]])

    def at(*points: tuple[float, float]) -> np.ndarray:
        return centre + ((np.array(points) * size / 2) @ turn.T) * [1, squeeze]

    if rng.random() < 0.4:
        white = (0.9, 0.9, 0.9) if not light.thermal else (0.5, 0.5, 0.5)
        for off in (-0.12, 0.12):
            canvas.line(at((-0.95, off))[0], at((-3.5, off * 1.3))[0], 0.09 * size, white, 0.35)
    _stroke(canvas, at((-0.9, 0), (0.9, 0)), max(0.11 * size, 1.0), colour)
    for side in (-1, 1):
        canvas.polygon(at((0.25, 0), (-0.25, side * 0.92), (-0.4, side * 0.92), (-0.12, 0)), colour)
        canvas.polygon(at((-0.68, 0), (-0.88, side * 0.34), (-0.98, side * 0.34), (-0.9, 0)), colour)
        hot = (0.9, 0.9, 0.9) if light.thermal else colour
        _stroke(canvas, at((0.1, side * 0.33), (-0.02, side * 0.33)), max(0.07 * size, 0.8), hot)
    if light.stars:
        _stroke(canvas, at((0, 0.9), (0, 0.9)), 1.6, (0.3, 1.0, 0.3))
        _stroke(canvas, at((0, -0.9), (0, -0.9)), 1.6, (0.25, 0.25, 1.0))


def _lamp(rng: np.random.Generator, canvas: Canvas, centre: np.ndarray, size: float, light: Light) -> None:
    """A street lamp: a post down to the edge of the canvas, one or two arms, heads that glow in the dark."""
    post = _dark(light, (0.32, 0.33, 0.33), 0.45)
    dark_hours = light.lit_windows >= 0.3 and not light.thermal
    glow = (0.55, 0.85, 1.0) if dark_hours else _dark(light, (0.75, 0.8, 0.8), 0.75)
    top = centre - [0, 0.25 * size]
    canvas.line(np.array([centre[0], canvas.height]), top, max(0.035 * size, 1.0), post)
    for side in ((-1, 1), (1,), (-1,))[int(rng.integers(3))]:
        head = top + np.array([side * 0.33, -0.08]) * size
        canvas.line(top, head, max(0.03 * size, 0.9), post)
        if dark_hours:
            for reach, share in ((0.30, 0.12), (0.2, 0.2), (0.12, 0.35)):
                canvas.line(head, head, reach * size, glow, share)
        half = np.array([0.07 * size, 0])
        canvas.line(head - half, head + half, max(0.055 * size, 1.2), glow)


def _balloon(rng: np.random.Generator, canvas: Canvas, centre: np.ndarray, size: float, light: Light) -> None:
    """A toy balloon on its string."""
    hue = ((0.2, 0.2, 0.85), (0.8, 0.45, 0.2), (0.2, 0.75, 0.9), (0.6, 0.3, 0.75))[int(rng.integers(4))]
    colour = _dark(light, hue, 0.3)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    shape = np.stack([0.3 * np.cos(angle), 0.36 * np.sin(angle) - 0.12], 1) * size
    canvas.polygon(centre + shape, colour)
    canvas.polygon(centre + shape * 0.25 + [-0.1 * size, -0.18 * size], as_colour(np.array(colour) * 1.35 + 0.1))
    canvas.line(centre + np.array([0, 0.24]) * size, centre + np.array([rng.normal(0, 0.05), 0.55]) * size, 0.7, colour)


def _stroke(canvas: Canvas, ends: np.ndarray, width: float, colour: Colour) -> None:
    canvas.line(ends[0], ends[1], width, colour)


OTHERS: dict[str, Draw] = {"bird": _bird, "aeroplane": _aeroplane, "lamp": _lamp, "balloon": _balloon}
