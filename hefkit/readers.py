"""One raw head tensor at a time: which scores reach the threshold, and the boxes of chosen cells.

Most of a class tensor is background, so it is read once, as codes, and never converted: `ScoreReader`
finds the few entries that count. `BoxReader` touches only the anchors that it is asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import cv2
import numpy as np

from hefkit.quant import dequantize, sigmoid
from hefkit.spec import CODE_DTYPES, HeadSpec, OutputSpec

FOLDS = 16  # how many parts of a tensor are laid over each other to find the places worth a look
WORTH_FOLDING = 1 << 15  # entries; below, looking at each costs less than the detour
SAFE_EXPONENT = 70.0  # exp(+-70), summed over 256 bins and weighted with them, fits float32 with room


class ScoreReader:
    """Finds the scores of one class tensor that reach `conf`."""

    def __init__(self, spec: OutputSpec, conf: float) -> None:
        self.spec = spec
        self.conf = np.float32(conf)
        self.table: np.ndarray | None = None
        if spec.dtype == "float32":
            # a hair below the threshold, in p for the flat top of the curve and in x for the rest: the
            # exact comparison follows on the few that pass
            least = conf if spec.activation == "sigmoid" else _logit(max(conf - 1e-6, 0.0)) - 1e-3
            self.least: np.generic | None = np.float32(least)
            return
        codes = np.arange(CODE_DTYPES[spec.dtype] + 1)[:, None]
        # (codes, 1) where the tensor has one scale, (codes, C) where it has one a feature
        self.table = scores_of(np.broadcast_to(codes, (len(codes), np.size(spec.scale))), spec)
        # scores rise with the code: the number of codes below conf is the first code that reaches it
        first_code = int((self.table < self.conf).sum(axis=0).min())
        self.least = np.dtype(spec.dtype).type(first_code) if first_code < len(codes) else None

    def at_least(self, tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, C) -> flat positions (n,) int64, ascending, and scores (n,) float32."""
        if self.least is None:  # no code reaches conf
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        flat = tensor.reshape(-1)
        hit = positions_at_least(flat, self.least)
        if self.table is None:
            score = scores_of(flat[hit], self.spec)
        elif self.table.shape[1] == 1:
            return hit, self.table[:, 0].take(flat.take(hit))
        else:
            score = self.table[flat[hit], hit % self.table.shape[1]]
        exact = score >= self.conf
        return hit[exact], score[exact]


def positions_at_least(flat: np.ndarray, least: np.generic) -> np.ndarray:
    """np.flatnonzero(flat >= least) for a long array (n,) in which few reach it; NaN never does."""
    size = len(flat) // FOLDS
    if len(flat) < WORTH_FOLDING:
        return np.flatnonzero(flat >= least)
    # fold the array, take the maximum of each column (vector instructions; fmax passes NaN over), and
    # look again only at the columns that reach the threshold
    folded = flat[: FOLDS * size].reshape(FOLDS, size)
    maximum = np.fmax if flat.dtype.kind == "f" else np.maximum
    columns = np.flatnonzero(maximum.reduce(folded, axis=0) >= least)
    if not len(columns) and FOLDS * size == len(flat):
        return columns
    fold, column = np.nonzero(folded.take(columns, axis=1) >= least)
    hit = fold * size + columns[column]
    if FOLDS * size == len(flat):
        return hit
    return np.concatenate([hit, FOLDS * size + np.flatnonzero(flat[FOLDS * size :] >= least)])


class BoxReader:
    """Boxes of chosen anchors, over all scales."""

    def __init__(self, head: HeadSpec) -> None:
        self.specs = head.outputs[0::2]
        self.reg_max = head.reg_max
        # bins times this: the sum weighted by distance, and the plain sum, in one product
        self._bins = np.stack([np.arange(head.reg_max), np.ones(head.reg_max)], axis=1).astype(np.float32)
        self._tables = [_exp_table(spec, head.reg_max) for spec in self.specs]
        # the first anchor of each scale, and the number of all
        self.first_anchor = np.cumsum([0, *(spec.shape[0] * spec.shape[1] for spec in self.specs)])

    @functools.cached_property
    def _grid(self) -> np.ndarray:
        """(anchors, 8) float32, pixels: centre x, y, x, y and what a cell to the left, top, right, bottom adds to it.

        Made at the first call: then there are tensors of that size, and no spec can claim more memory than they.
        """
        grid = np.empty((self.first_anchor[-1], 8), np.float32)
        for spec, first in zip(self.specs, self.first_anchor, strict=False):
            height, width, _ = spec.shape
            y, x = np.divmod(np.arange(height * width), width)
            centre = (np.stack([x, y, x, y], axis=1) + 0.5) * spec.stride
            grid[first : first + height * width, :4] = centre
            grid[first : first + height * width, 4:] = np.array([-1, -1, 1, 1]) * spec.stride
        return grid

    def at(self, tensors: Sequence[np.ndarray], anchor: np.ndarray) -> np.ndarray:
        """(n,) ascending anchors -> (n, 4) float32 xyxy in pixels of the input; NaN where a tensor has no number."""
        if not len(anchor):
            return np.zeros((0, 4), np.float32)
        ends = np.searchsorted(anchor, self.first_anchor).tolist()
        grid = self._grid.take(anchor, axis=0)
        with np.errstate(over="ignore", invalid="ignore"):  # a float model may return anything; callers drop it
            values = []
            for i, tensor in enumerate(tensors):
                cells = anchor[ends[i] : ends[i + 1]] - self.first_anchor[i]
                if len(cells):
                    values.append(self._weights(i, tensor.reshape(-1, tensor.shape[2]).take(cells, axis=0)))
            sides = np.concatenate(values)
            if self.reg_max > 1:
                sums = sides.reshape(-1, self.reg_max) @ self._bins
                sides = (sums[:, 0] / sums[:, 1]).reshape(-1, 4)
            return sides * grid[:, 4:] + grid[:, :4]

    def _weights(self, scale: int, rows: np.ndarray) -> np.ndarray:
        """(n, 4 * reg_max) codes or floats -> float32 weights of the bins; distances in cells where there are none."""
        table, spec = self._tables[scale], self.specs[scale]
        if table is not None:
            return cv2.LUT(rows, table)
        real = rows if rows.dtype == np.float32 else dequantize(rows, spec.scale, spec.zero_point)
        if self.reg_max == 1:
            return real
        bins = real.reshape(-1, self.reg_max)
        return np.exp(bins - bins.max(axis=-1, keepdims=True)).reshape(real.shape)


def _exp_table(spec: OutputSpec, reg_max: int) -> np.ndarray | None:
    """exp(real) for all 256 codes, (256,) float32, where that can stand for the softmax.

    A factor common to all bins cancels, so the table may put its 1 anywhere, unless the codes lie so far
    apart that float32 cannot hold them all; then the largest bin of each side must be the 1.
    """
    if reg_max == 1 or spec.dtype != "uint8" or np.size(spec.scale) > 1 or np.size(spec.zero_point) > 1:
        return None
    exponent = (np.arange(256) - 127.5) * np.asarray(spec.scale, np.float64)
    return np.exp(exponent).astype(np.float32) if exponent[-1] <= SAFE_EXPONENT else None


def scores_of(values: np.ndarray, spec: OutputSpec) -> np.ndarray:
    """Class codes or floats (..., C) -> float32 scores."""
    real = values if spec.dtype == "float32" else dequantize(values, spec.scale, spec.zero_point)
    return real if spec.activation == "sigmoid" else sigmoid(real)


def _logit(p: float) -> float:
    with np.errstate(divide="ignore"):
        return float(np.log(p) - np.log1p(-p))
