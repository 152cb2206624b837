"""Multirotors, built from boxes, rods and discs in space and drawn from any side.

Coordinates of the model: x to the right, y forward, z up; one unit is about the distance between opposite rotors.
Coordinates of the view: x to the right, y down, z towards the camera.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from drone_scenes.layers import Canvas, Layer
from drone_scenes.light import Colour, Light, as_colour

DRONE_KINDS = ("camera", "classic", "racer", "hexa", "octo", "carrier")
BODIES: tuple[Colour, ...] = (
    (0.88, 0.88, 0.87), (0.62, 0.62, 0.60), (0.36, 0.35, 0.34), (0.16, 0.16, 0.16), (0.09, 0.09, 0.09),
    (0.18, 0.42, 0.85), (0.20, 0.20, 0.70), (0.75, 0.72, 0.30),
)  # fmt: skip
TURN_POINTS = 40  # of a rotor's circle


@dataclass(frozen=True)
class Pose:
    """How the camera sees it; angles in radians."""

    yaw: float
    pitch: float  # nose down
    roll: float
    below: float  # the camera looks up at it by this angle; negative: down on it

    def matrix(self) -> np.ndarray:
        """(3, 3): coordinates of the model -> of the view."""
        flight = _about_y(self.roll) @ _about_x(-self.pitch) @ _about_z(self.yaw)
        # from straight ahead (we look along +y) up or down; then x right, y down, z towards us
        return np.array([[1, 0, 0], [0, 0, -1], [0, -1, 0]]) @ _about_x(-self.below) @ flight


@dataclass(frozen=True)
class Look:
    """Colours, and whether the blades stand still in the picture."""

    body: Colour
    arms: Colour
    hot: Colour  # motors
    rotors: Colour
    opacity: float  # of a turning rotor
    still: bool
    lamps: bool
    spin: float  # angle of the blades


def draw_drone(
    kind: str, pose: Pose, look: Look, light: Light, size: float, centre: tuple[float, float], blur: float,
    smear: np.ndarray,
) -> Layer:  # fmt: skip
    """One drone whose longer side measures about `size` pixels before blur, around `centre`."""
    parts = _Model(kind, pose.matrix(), look, light)
    low, high = parts.extent()
    scale = size / float((high - low).max())
    reach = size / 2 + 3 * blur + float(np.abs(smear).max()) / 2 + 3
    left, top = int(centre[0] - reach), int(centre[1] - reach)
    side = int(2 * reach) + 2
    canvas = Canvas(side, side, int(np.clip(256 // side, 2, 8)))
    parts.draw(canvas, scale, np.array(centre) - [left, top] - scale * (low + high) / 2)
    return canvas.layer(left, top, blur=blur, smear=smear)


class _Model:
    """The solids of one kind, turned into the view."""

    def __init__(self, kind: str, turn: np.ndarray, look: Look, light: Light) -> None:
        self.turn, self.look, self.light = turn, look, light
        self.boxes: list[tuple[np.ndarray, Colour]] = []  # corners (8, 3)
        self.rods: list[tuple[np.ndarray, float, Colour]] = []  # ends (2, 3), radius
        self.rotors: list[np.ndarray] = []  # (TURN_POINTS, 3)
        self.lamps: list[tuple[np.ndarray, Colour]] = []
        _BUILD[kind](self)

    def box(self, centre: tuple[float, float, float], half: tuple[float, float, float], colour: Colour) -> None:
        """An upright box; `half` its half sides. Narrower on top, as moulded bodies are."""
        signs = np.array([[x, y, z] for z in (-1, 1) for y in (-1, 1) for x in (-1, 1)], float)
        narrow = np.where(signs[:, 2:] > 0, 0.75, 1.0) * [1, 1, 0] + [0, 0, 1]
        corners = np.array(centre) + signs * half * narrow
        self.boxes.append((corners @ self.turn.T, colour))

    def rod(self, start: np.ndarray, end: np.ndarray, radius: float, colour: Colour) -> None:
        """A straight round piece."""
        self.rods.append((np.stack([start, end]) @ self.turn.T, radius, colour))

    def rotor(self, hub: np.ndarray, radius: float) -> None:
        """The circle that the blades reach."""
        angle = np.linspace(0, 2 * np.pi, TURN_POINTS, endpoint=False)
        circle = hub + radius * np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], 1)
        self.rotors.append(circle @ self.turn.T)

    def arms(self, places: np.ndarray, radius: float, rotor: float, root: float = 0.1) -> None:
        """From the body to every motor at `places` (n, 3), with rotors."""
        for place in places:
            self.rod(place * [root / np.hypot(*place[:2])] * [1, 1, 0], place, radius, self.look.arms)
            self.rod(place, place + np.array([0, 0, 0.06]), 0.045, self.look.hot)
            self.rotor(place + np.array([0, 0, 0.075]), rotor)
            if self.look.lamps:
                colour = (0.2, 0.25, 1.0) if place[1] < 0 else (0.3, 1.0, 0.35)
                self.lamps.append((self.turn @ (place - [0, 0, 0.03]), colour))

    def extent(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest x, y of everything, in units of the model."""
        rods = [ends[:, :2] + s * r for ends, r, _ in self.rods for s in (-1, 1)]
        points = np.concatenate([p[:, :2] for p, _ in self.boxes] + rods + [p[:, :2] for p in self.rotors])
        return points.min(axis=0), points.max(axis=0)

    def draw(self, canvas: Canvas, scale: float, origin: np.ndarray) -> None:
        """The far parts first."""

        def at(points: np.ndarray) -> np.ndarray:
            return points[..., :2] * scale + origin

        solids: list[tuple[np.ndarray, Callable[[], None]]] = []
        solids += [(p, partial(self._draw_box, canvas, at, p, colour)) for p, colour in self.boxes]
        solids += [(p, partial(self._draw_rod, canvas, at, p, 2 * r * scale, colour)) for p, r, colour in self.rods]
        solids += [(p, partial(self._draw_rotor, canvas, at, p)) for p in self.rotors]
        for _, draw in sorted(solids, key=lambda solid: float(solid[0][:, 2].mean())):
            draw()
        for place, colour in self.lamps:
            canvas.line(at(place), at(place), max(0.07 * scale, 1.3), colour)

    def _lit(self, colour: Colour, facing: float) -> Colour:
        """A colour under the light; `facing` 1 looks up, -1 down."""
        bright = self.light.ambient + self.light.direct * max(0.35 + 0.65 * facing, 0.0)
        return as_colour(np.array(colour) * bright)

    def _draw_box(self, canvas: Canvas, at: Callable[[np.ndarray], np.ndarray], p: np.ndarray, colour: Colour) -> None:
        for face in ((0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5)):
            corners = p[list(face)]
            outward = corners.mean(axis=0) - p.mean(axis=0)
            normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
            normal *= np.sign(normal @ outward) / max(np.linalg.norm(normal), 1e-9)
            if normal[2] > 0:  # towards us
                canvas.polygon(at(corners), self._lit(colour, float(-normal[1])))

    def _draw_rod(
        self, canvas: Canvas, at: Callable[[np.ndarray], np.ndarray], ends: np.ndarray, width: float, colour: Colour
    ) -> None:
        start, end = at(ends)
        canvas.line(start, end, width, self._lit(colour, 0.4))

    def _draw_rotor(self, canvas: Canvas, at: Callable[[np.ndarray], np.ndarray], circle: np.ndarray) -> None:
        look, points = self.look, at(circle)
        if not look.still:
            canvas.polygon(points, look.rotors, look.opacity)
            return
        first = int(look.spin / (2 * np.pi) * TURN_POINTS)
        hub = points.mean(axis=0)
        for tip in (first, first + TURN_POINTS // 2):
            blade = [points[(tip + i) % TURN_POINTS] for i in (-1, 0, 1)]
            canvas.polygon(np.stack([*blade, hub]), look.rotors, 0.95)


def _ring(count: int, radius: float, first: float, height: float) -> np.ndarray:
    """(count, 3) places on a circle."""
    angle = first + np.arange(count) * 2 * np.pi / count
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full(count, height)], 1)


def _legs(model: _Model, spread: float, depth: float, length: float) -> None:
    """Two skids on struts."""
    for side in (-spread, spread):
        for y in (-0.6 * length, 0.6 * length):
            model.rod(np.array([0.5 * side, y, -0.02]), np.array([side, y, -depth]), 0.014, model.look.arms)
        model.rod(np.array([side, -length, -depth]), np.array([side, length, -depth]), 0.018, model.look.arms)


def _camera(model: _Model) -> None:
    model.box((0, 0, 0.03), (0.10, 0.21, 0.065), model.look.body)
    model.box((0, 0.22, -0.01), (0.045, 0.04, 0.04), model.look.arms)
    places = np.array([[-0.36, 0.27, 0.05], [0.36, 0.27, 0.05], [-0.34, -0.31, 0.0], [0.34, -0.31, 0.0]])
    model.arms(places, 0.028, 0.23)
    for x in (-0.36, 0.36):
        model.rod(np.array([x, 0.27, 0.05]), np.array([x, 0.27, -0.1]), 0.02, model.look.arms)


def _classic(model: _Model) -> None:
    model.box((0, 0, 0.03), (0.16, 0.16, 0.07), model.look.body)
    model.arms(_ring(4, 0.5, np.pi / 4, 0.03), 0.05, 0.24)
    _legs(model, 0.2, 0.27, 0.2)
    model.box((0, 0.05, -0.14), (0.05, 0.05, 0.05), model.look.arms)


def _racer(model: _Model) -> None:
    model.box((0, 0, 0.02), (0.07, 0.19, 0.03), model.look.arms)
    model.box((0, 0, 0.07), (0.05, 0.13, 0.03), model.look.body)
    model.box((0, 0.17, 0.06), (0.03, 0.03, 0.035), model.look.body)
    model.arms(_ring(4, 0.45, np.pi / 4, 0.02), 0.03, 0.22)


def _hexa(model: _Model) -> None:
    model.box((0, 0, 0.03), (0.15, 0.15, 0.06), model.look.body)
    model.arms(_ring(6, 0.52, np.pi / 6, 0.03), 0.024, 0.21)
    _legs(model, 0.24, 0.3, 0.16)
    model.box((0, 0.04, -0.12), (0.06, 0.06, 0.06), model.look.arms)


def _octo(model: _Model) -> None:
    model.box((0, 0, 0.03), (0.17, 0.17, 0.06), model.look.body)
    model.arms(_ring(8, 0.55, np.pi / 8, 0.03), 0.02, 0.19)
    _legs(model, 0.22, 0.28, 0.2)


def _carrier(model: _Model) -> None:
    model.box((0, 0, 0.04), (0.13, 0.17, 0.06), model.look.body)
    model.arms(_ring(4, 0.52, np.pi / 4, 0.06), 0.032, 0.25)
    _legs(model, 0.2, 0.2, 0.2)
    for x in (-0.06, 0.06):
        model.rod(np.array([x, 0, 0.0]), np.array([x, 0, -0.18]), 0.01, model.look.arms)
    model.box((0, 0, -0.25), (0.13, 0.11, 0.09), (0.42, 0.55, 0.68) if not model.light.thermal else model.look.body)


_BUILD: dict[str, Callable[[_Model], None]] = {
    "camera": _camera, "classic": _classic, "racer": _racer, "hexa": _hexa, "octo": _octo, "carrier": _carrier,
}  # fmt: skip


def _about_x(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _about_y(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _about_z(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
