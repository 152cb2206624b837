"""What is in picture number i of a split: everything random is decided here, and nothing is drawn yet.

A picture depends on the seed, its split and its number alone: the first 24 of a large set are the whole of a small one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drone_scenes.drones import BODIES, DRONE_KINDS, Look, Pose
from drone_scenes.light import LIGHTS, Colour, Light, grey, varied
from drone_scenes.sky import CLOUDS

SPLITS = ("train", "val")
CLASSES = ("drone", "IR-drone")
# in this order, again and again, so that every part of a set has the same mixture: 3 of 10 are a thermal camera's
WEATHER = (
    "clear", "thermal", "overcast", "golden", "thermal", "hazy", "night", "clear", "thermal", "dusk",
)  # fmt: skip
SIZES = ((640, 480), (640, 480), (640, 512), (640, 360), (480, 640))
THERMAL_SIZES = ((640, 512), (640, 480))
# share of the drones, and the shortest and longest of their longer sides in pixels
SPANS = ((0.30, 8.5, 15.0), (0.32, 15.0, 40.0), (0.24, 40.0, 90.0), (0.14, 90.0, 190.0))
COUNTS = (0, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 5)  # drones in a picture: one of these by chance
APART = 1.15  # of the sum of two radii: drones and other objects do not cover each other


@dataclass(frozen=True)
class Drone:
    """One drone to be drawn."""

    kind: str
    pose: Pose
    look: Look
    size: float  # longer side in pixels, before blur
    centre: tuple[float, float]
    blur: float  # sigma in pixels
    smear: tuple[float, float]  # pixels that it moves while the shutter is open


@dataclass(frozen=True)
class Other:
    """One object that is not a drone."""

    kind: str
    seed: int
    size: float
    centre: tuple[float, float]
    blur: float


@dataclass(frozen=True)
class Camera:
    """What the camera adds."""

    noise: float  # sigma, of 0..1
    vignette: float
    soft: float  # sigma of its blur in pixels
    hot_is_dark: bool  # of a thermal camera
    coloured: bool  # of a thermal camera: a palette instead of greys
    quality: int  # of the JPEG
    seed: int


@dataclass(frozen=True)
class ScenePlan:
    """Everything about one picture."""

    size_wh: tuple[int, int]
    light: Light
    weather: str
    horizon: float  # pixels from the top; beyond the height: sky only
    clouds: str
    features: tuple[str, ...]
    foreground: str | None
    seed: int  # of the scenery
    drones: tuple[Drone, ...]
    others: tuple[Other, ...]
    camera: Camera

    @property
    def class_id(self) -> int:
        """0 in daylight and darkness, 1 for a thermal camera."""
        return int(self.light.thermal)


def make_plan(seed: int, split: str, index: int) -> ScenePlan:
    """Decide everything about picture `index` of `split`."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    weather = WEATHER[index % len(WEATHER)]
    light = varied(LIGHTS[weather], rng)
    sizes = THERMAL_SIZES if light.thermal else SIZES
    size_wh = sizes[int(rng.integers(len(sizes)))]
    horizon = float(rng.choice([1.4, rng.uniform(0.6, 1.1), rng.uniform(0.25, 0.6)], p=[0.3, 0.55, 0.15])) * size_wh[1]
    drones = _drones(rng, size_wh, light, horizon)
    return ScenePlan(
        size_wh=size_wh,
        light=light,
        weather=weather,
        horizon=horizon,
        clouds=str(rng.choice(CLOUDS, p=[0.2, 0.25, 0.35, 0.2])),
        features=tuple(
            f for f, p in (("hills", 0.5), ("wood", 0.55), ("town", 0.4), ("trees", 0.4)) if rng.random() < p
        ),
        foreground=str(rng.choice(["wires", "twig"])) if rng.random() < 0.14 else None,
        seed=int(rng.integers(2**31)),
        drones=drones,
        others=_others(rng, size_wh, light, horizon, drones),
        camera=_camera(rng, light),
    )


def _drones(rng: np.random.Generator, size_wh: tuple[int, int], light: Light, horizon: float) -> tuple[Drone, ...]:
    drones: list[Drone] = []
    for _ in range(COUNTS[int(rng.integers(len(COUNTS)))]):
        _, low, high = SPANS[int(rng.choice(len(SPANS), p=[share for share, _, _ in SPANS]))]
        size = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        centre = _free_place(rng, size_wh, size, [(d.centre, d.size) for d in drones])
        if centre is not None:
            drones.append(_drone(rng, light, horizon, size, centre))
    return tuple(drones)


def _drone(rng: np.random.Generator, light: Light, horizon: float, size: float, centre: tuple[float, float]) -> Drone:
    above = (horizon - centre[1]) / 480
    pose = Pose(
        yaw=float(rng.uniform(0, 2 * np.pi)),
        pitch=float(rng.normal(0, 0.2)),
        roll=float(rng.normal(0, 0.16)),
        below=float(np.clip(0.9 * above + rng.normal(0.05, 0.2), -0.9, 1.2)),
    )
    smear = rng.uniform(0.05, 0.22) * size if rng.random() < 0.2 else 0.0
    way = rng.uniform(0, 2 * np.pi)
    return Drone(
        kind=str(rng.choice(DRONE_KINDS, p=[0.26, 0.2, 0.16, 0.16, 0.1, 0.12])),
        pose=pose,
        look=_look(rng, light),
        size=size,
        centre=centre,
        blur=float(min(rng.uniform(0.0, 0.5) + 0.012 * size * rng.random(), 2.0)),
        smear=(float(smear * np.cos(way)), float(smear * np.sin(way))),
    )


def _look(rng: np.random.Generator, light: Light) -> Look:
    still = bool(rng.random() < 0.35)
    opacity, spin = float(rng.uniform(0.25, 0.5)), float(rng.uniform(0, 2 * np.pi))
    if light.thermal:
        body = rng.uniform(0.55, 0.8)
        return Look(grey(body), grey(body * 0.85), grey(0.98), grey(0.55), opacity, still, False, spin)
    body_colour: Colour = BODIES[int(rng.integers(len(BODIES)))]
    arms: Colour = body_colour if rng.random() < 0.4 else grey(float(rng.uniform(0.06, 0.3)))
    rotors = grey(float(rng.uniform(0.08, 0.5)) * (0.4 + 0.6 * light.ambient))
    lamps = bool(rng.random() < (0.85 if light.lit_windows >= 0.3 else 0.15))
    return Look(body_colour, arms, grey(float(rng.uniform(0.1, 0.3))), rotors, opacity, still, lamps, spin)


def _others(
    rng: np.random.Generator, size_wh: tuple[int, int], light: Light, horizon: float, drones: tuple[Drone, ...]
) -> tuple[Other, ...]:
    others: list[Other] = []
    if rng.random() < 0.45:
        return ()
    for _ in range(int(rng.integers(1, 4))):
        kind = str(rng.choice(["bird", "aeroplane", "lamp", "balloon"], p=[0.5, 0.2, 0.2, 0.1]))
        flock = int(rng.integers(3, 9)) if kind == "bird" and rng.random() < 0.25 else 1
        low, high = {"bird": (9, 60), "aeroplane": (14, 110), "lamp": (30, 170), "balloon": (14, 60)}[kind]
        size = float(np.exp(rng.uniform(np.log(low), np.log(high)))) / (1 if flock == 1 else 1.8)
        for _ in range(flock):
            taken = [(d.centre, d.size) for d in drones] + [(o.centre, o.size * 1.4) for o in others]
            centre = _free_place(rng, size_wh, size * 1.4, taken)
            if centre is not None and (kind != "aeroplane" or centre[1] < horizon - size / 2):
                seed, blur = int(rng.integers(2**31)), float(rng.uniform(0.2, 0.8))
                others.append(Other(kind, seed, size * float(rng.uniform(0.8, 1.2)), centre, blur))
    return tuple(others)


def _free_place(
    rng: np.random.Generator, size_wh: tuple[int, int], size: float, taken: list[tuple[tuple[float, float], float]]
) -> tuple[float, float] | None:
    """A centre with most of the object in the picture and without a touch of others; None after some tries."""
    for _ in range(20):
        over = 0.2 * size if rng.random() < 0.15 else -0.55 * size  # some are cut off by the edge
        x, y = (float(rng.uniform(-over, side + over)) if side > -2 * over else side / 2 for side in size_wh)
        if all(np.hypot(x - c[0], y - c[1]) > APART * (size + s) / 2 for c, s in taken):
            return x, y
    return None


def _camera(rng: np.random.Generator, light: Light) -> Camera:
    dark = light.lit_windows >= 0.3 and not light.thermal
    return Camera(
        noise=float(rng.uniform(0.007, 0.018) if dark or light.thermal else rng.uniform(0.003, 0.011)),
        vignette=float(rng.uniform(0, 0.22)),
        soft=float(rng.uniform(0.3, 0.7)),
        hot_is_dark=bool(rng.random() < 0.3),
        coloured=bool(rng.random() < 0.2),
        quality=int(rng.integers(74, 91)),
        seed=int(rng.integers(2**31)),
    )
