"""A plan to pixels and boxes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from drone_scenes.drones import draw_drone
from drone_scenes.ground import foreground, paint_ground
from drone_scenes.layers import Box, Layer, put
from drone_scenes.others import draw_other
from drone_scenes.plans import Camera, Drone, ScenePlan
from drone_scenes.sky import paint_sky

MIN_CONTRAST = 0.13  # between a drone and its background; with less it cannot be seen
MIN_SEEN = 0.6  # share of a drone that must be in the picture and not behind twigs; with less it is left out


@dataclass(frozen=True)
class Picture:
    """What was drawn: (H, W, 3) uint8 BGR, and the box of every drone in it."""

    pixels: np.ndarray
    boxes: tuple[Box, ...]


def draw(plan: ScenePlan) -> Picture:
    """Paint a scene from far to near and photograph it."""
    scene, boxes = paint(plan)
    return Picture(photograph(scene, plan.camera, thermal=plan.light.thermal), boxes)


def paint(plan: ScenePlan) -> tuple[np.ndarray, tuple[Box, ...]]:
    """(H, W, 3) float32 BGR 0..1 before the camera, and the boxes of what is visible of each drone."""
    scene, near = scenery(plan)
    return scene, add_drones(scene, plan, near)


def scenery(plan: ScenePlan) -> tuple[np.ndarray, Layer | None]:
    """Everything except the drones: the scene behind them, and the twigs or wires before them."""
    rng = np.random.default_rng(plan.seed)
    scene = paint_sky(rng, plan.size_wh, plan.light, plan.horizon, plan.clouds)
    paint_ground(rng, scene, plan.light, plan.horizon, plan.features)
    for other in plan.others:
        own, foot = np.random.default_rng(other.seed), min(plan.horizon + 0.5 * other.size, plan.size_wh[1])
        put(scene, draw_other(own, other.kind, plan.light, other.size, other.centre, other.blur, foot))
    return scene, foreground(rng, plan.size_wh, plan.light, plan.foreground) if plan.foreground else None


def add_drones(scene: np.ndarray, plan: ScenePlan, near: Layer | None) -> tuple[Box, ...]:
    """Draw the drones, and `near` over them, in place; returns the boxes."""
    boxes = [_add(scene, plan, drone, near) for drone in plan.drones]
    if near is not None:
        put(scene, near)
    return tuple(box for box in boxes if box is not None)


def _add(scene: np.ndarray, plan: ScenePlan, drone: Drone, near: Layer | None) -> Box | None:
    """Draw one drone and return its box; None, without drawing, if too little of it would be seen."""
    whole = draw_drone(
        drone.kind, drone.pose, drone.look, plan.light, drone.size, drone.centre, drone.blur, np.array(drone.smear)
    )
    layer = whole.inside(scene.shape)
    visible = layer if near is None else layer.behind(near.alpha)
    if visible.alpha.sum() < MIN_SEEN * whole.alpha.sum():
        return None
    put(scene, _with_contrast(layer, scene))
    return visible.box()


def _with_contrast(layer: Layer, scene: np.ndarray) -> Layer:
    """The layer, made darker or brighter if it could not be seen before its background."""
    cover = float(layer.alpha.sum())
    behind = float((scene[layer.window()].mean(axis=2) * layer.alpha).sum()) / cover
    own = float(layer.colour.mean(axis=2).sum()) / cover
    if abs(own - behind) >= MIN_CONTRAST:
        return layer
    wanted = behind - MIN_CONTRAST if behind > 0.4 else behind + MIN_CONTRAST
    return layer.toned(wanted / own, 0.0) if wanted < own else layer.toned(1.0, wanted - own)


def photograph(scene: np.ndarray, camera: Camera, *, thermal: bool) -> np.ndarray:
    """(H, W, 3) float32 scene -> uint8 BGR, with the faults of a camera."""
    rng = np.random.default_rng(camera.seed)
    height, width = scene.shape[:2]
    image = cv2.GaussianBlur(scene, (0, 0), camera.soft)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    image *= (1 - camera.vignette * (x**2 + y**2) / 2)[..., None]
    if thermal:
        return _thermal(rng, image.mean(axis=2), camera)
    grain = rng.normal(0, 1, (height, width, 3)).astype(np.float32) * 0.6
    grain += rng.normal(0, 1, (height, width, 1)).astype(np.float32) * 0.8
    return _uint8(image + camera.noise * grain * (0.6 + 0.8 * (1 - image)))


def _thermal(rng: np.random.Generator, warm: np.ndarray, camera: Camera) -> np.ndarray:
    """Temperatures 0..1 -> grey or coloured uint8 BGR, with the stripes of such sensors."""
    height, width = warm.shape
    stripes = rng.normal(0, 0.25, (1, width)) + rng.normal(0, 0.12, (height, 1))
    warm = warm + (camera.noise * (rng.normal(0, 0.7, (height, width)) + stripes)).astype(np.float32)
    low, high = np.percentile(warm, (0.5, 99.8))  # such cameras spread what they see over all their greys
    warm = 0.06 + 0.86 * (warm - low) / max(high - low, 0.35)
    grey = _uint8(1 - warm if camera.hot_is_dark and not camera.coloured else warm)
    return cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO) if camera.coloured else cv2.merge([grey] * 3)


def _uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
