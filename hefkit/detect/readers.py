"""Raw head tensors: find the scores that reach the threshold, and compute the boxes of given anchors.

Most of a class tensor is background. `ScoreReader` compares its codes with one threshold code, and converts only the
entries that reach it. `BoxReader` reads only the given anchors. In a frame with few objects the time depends on the
number of numpy calls, not on the amount of data: so one call serves all scales where possible, and a table replaces
arithmetic that would take several calls.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import cv2
import numpy as np

from hefkit.detect.quant import dequantize, sigmoid
from hefkit.spec import CODE_DTYPES, HeadSpec, OutputSpec

FOLD_MIN = 1 << 16  # entries; in fewer, comparing each is faster than folding
FOLDS = (16, 256)  # parts; fewest and most that a tensor is cut into
MAX_FOLD_WIDTH = 1 << 15  # entries of a part; longer parts are cut again
SAFE_EXPONENT = 70.0  # exp(+-70), weighted and summed over 256 bins, is far below the limit of float32


class ScoreReader:
    """Finds the scores of all class tensors that reach `conf`."""

    def __init__(self, specs: Sequence[OutputSpec], conf: float) -> None:
        self._groups = []
        first = 0
        for _, alike in itertools.groupby(enumerate(specs), key=lambda item: _meaning(item[1])):
            indices, same = zip(*alike, strict=True)
            sizes = [math.prod(spec.shape) for spec in same]
            self._groups.append(_AlikeScores(same, sizes, conf, first, slice(indices[0], indices[-1] + 1)))
            first += sum(sizes)

    def at_least(self, tensors: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, C) of every scale -> positions (n,) int64 in all of them, ascending, and scores (n,) float32."""
        if len(self._groups) == 1:
            return self._groups[0].at_least(tensors)
        found = [group.at_least(tensors) for group in self._groups]
        return np.concatenate([hit for hit, _ in found]), np.concatenate([score for _, score in found])


class _AlikeScores:
    """Class tensors of neighbouring scales that have the same quantisation; they are read as one."""

    def __init__(
        self, specs: Sequence[OutputSpec], sizes: Sequence[int], conf: float, first: int, which: slice
    ) -> None:
        self._spec, self._which, self._first = specs[0], which, first
        self._conf = np.float32(conf)
        self._table, self._least = _score_table(self._spec, conf)
        self._width = _fold_width(sizes)

    def at_least(self, tensors: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, C) of every scale -> positions (n,) over all groups, and scores (n,)."""
        if self._least is None:  # no code reaches conf
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        hit, value = (self._folded if self._width else self._straight)(tensors[self._which])
        if self._table is None:
            score = scores_of(value, self._spec)
        elif self._table.ndim == 1:  # one scale for all features: each entry that reaches `least` reaches conf
            return hit + self._first if self._first else hit, self._table.take(value)
        else:
            score = self._table[value, hit % self._table.shape[1]]
        exact = (score >= self._conf).nonzero()[0]
        return hit.take(exact) + self._first, score.take(exact)

    def _straight(self, tensors: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Positions and values of the entries that reach `least`: copy all, compare each."""
        flat = np.concatenate(tensors, axis=None)
        hit = (flat >= self._least).nonzero()[0]
        return hit, flat.take(hit)

    def _folded(self, tensors: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The same, faster for large tensors: cut all tensors into parts of one length, the rows of a table.

        The maximum of every column is computed with vector instructions. Only columns whose maximum reaches `least` are
        searched row by row.
        """
        tables = [tensor.reshape(-1, self._width) for tensor in tensors]
        maximum = np.fmax if self._spec.dtype == "float32" else np.maximum  # (fmax ignores NaN)
        largest = maximum.reduce(tables[0], axis=0)
        for table in tables[1:]:
            maximum(largest, table[0] if len(table) == 1 else maximum.reduce(table, axis=0), out=largest)
        columns = (largest >= self._least).nonzero()[0]
        count = len(columns)
        if not count:
            return columns, largest[:0]
        # (numpy 1.24 takes single bytes along an axis three times slower than it indexes them)
        values = np.concatenate([table[:, columns] for table in tables]).reshape(-1)
        hit = (values >= self._least).nonzero()[0]
        row, column = np.divmod(hit, count)
        row *= self._width
        row += columns.take(column)
        return row, values.take(hit)


class BoxReader:
    """Computes the boxes of given anchors, over all scales."""

    def __init__(self, head: HeadSpec) -> None:
        self.specs = head.outputs[0::2]
        self.reg_max = head.reg_max
        # bins @ this: the sum weighted by distance, and the plain sum, in one product
        self._bins = np.stack([np.arange(head.reg_max), np.ones(head.reg_max)], axis=1).astype(np.float32)
        self._tables = [_weight_table(spec, head.reg_max) for spec in self.specs]
        # whether no box can contain NaN or infinity
        self.always_finite = all(table is not None for table in self._tables)
        # the first anchor of each scale, then the number of all anchors
        self.first_anchor = np.cumsum([0, *(spec.shape[0] * spec.shape[1] for spec in self.specs)])

    @functools.cached_property
    def _grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Two (anchors, 4) float32 arrays in pixels: centres x, y, x, y; steps of one cell left, up, right, down.

        Made at the first call. Tensors of this size exist then, so a wrong spec cannot make us allocate more.
        """
        centres, steps = [], []
        for spec in self.specs:
            height, width, _ = spec.shape
            y, x = np.divmod(np.arange(height * width), width)
            centres.append((np.stack([x, y, x, y], axis=1) + 0.5) * spec.stride)
            steps.append(np.tile(np.array([-1, -1, 1, 1]) * spec.stride, (height * width, 1)))
        return np.concatenate(centres).astype(np.float32), np.concatenate(steps).astype(np.float32)

    def at(self, tensors: Sequence[np.ndarray], anchor: np.ndarray) -> np.ndarray:
        """(n,) ascending anchors -> (n, 4) float32 xyxy in pixels of the input; not finite where a tensor is not."""
        if not len(anchor):
            return np.zeros((0, 4), np.float32)
        if self.always_finite:
            return self._at(tensors, anchor)
        with np.errstate(over="ignore", invalid="ignore"):  # a float model may return infinities; callers drop them
            return self._at(tensors, anchor)

    def _at(self, tensors: Sequence[np.ndarray], anchor: np.ndarray) -> np.ndarray:
        ends = [0, *anchor.searchsorted(self.first_anchor[1:]).tolist()]
        weights = np.empty((len(anchor), 4 * self.reg_max), np.float32)
        for scale, tensor in enumerate(tensors):
            some = slice(ends[scale], ends[scale + 1])
            if some.start == some.stop:
                continue
            cells = anchor[some] - self.first_anchor[scale]
            self._weigh(scale, tensor.reshape(-1, weights.shape[1]).take(cells, axis=0), weights[some])
        if self.reg_max > 1:
            sums = np.dot(weights.reshape(-1, self.reg_max), self._bins)
            weights = (sums[:, 0] / sums[:, 1]).reshape(-1, 4)
        centre, step = self._grid
        weights *= step.take(anchor, axis=0)
        weights += centre.take(anchor, axis=0)
        return weights

    def _weigh(self, scale: int, rows: np.ndarray, out: np.ndarray) -> None:
        """(n, 4 * reg_max) codes or floats -> float32 weights of the bins, or distances in cells if reg_max is 1."""
        table, spec = self._tables[scale], self.specs[scale]
        if table is not None:
            cv2.LUT(rows, table, out)
            return
        real = rows if rows.dtype == np.float32 else dequantize(rows, spec.scale, spec.zero_point)
        if self.reg_max == 1:
            out[:] = real
            return
        bins = real.reshape(-1, self.reg_max)
        np.exp(bins - bins.max(axis=-1, keepdims=True), out=out.reshape(bins.shape))


def scores_of(values: np.ndarray, spec: OutputSpec) -> np.ndarray:
    """Class codes or floats (..., C) -> float32 scores."""
    real = values if spec.dtype == "float32" else dequantize(values, spec.scale, spec.zero_point)
    return real if spec.activation == "sigmoid" else sigmoid(real)


def _meaning(spec: OutputSpec) -> tuple[object, ...]:
    """The values that decide which score a code has."""
    return spec.dtype, spec.activation, spec.scale, spec.zero_point


def _score_table(spec: OutputSpec, conf: float) -> tuple[np.ndarray | None, np.generic | None]:
    """The score of every code, and the lowest code that may reach conf (None: there is none).

    The table is (codes,) for a tensor with one scale, and (codes, C) for one scale per feature. For floats there is no
    table, and the second value is the lowest number.
    """
    if spec.dtype == "float32":
        # slightly below the threshold: by 1e-6 in the score, which counts at the flat top of the curve, and by 1e-3 in
        # the logit, which counts elsewhere; the few entries that pass are compared exactly afterwards
        return None, np.float32(conf if spec.activation == "sigmoid" else _logit(max(conf - 1e-6, 0.0)) - 1e-3)
    features = max(np.size(spec.scale), np.size(spec.zero_point))
    codes = np.arange(CODE_DTYPES[spec.dtype] + 1)[:, None]
    table = scores_of(np.broadcast_to(codes, (len(codes), features)), spec)
    # scores rise with the code, so the number of codes below conf is the first code that reaches it
    first_code = int((table < np.float32(conf)).sum(axis=0).min())
    least = np.dtype(spec.dtype).type(first_code) if first_code < len(codes) else None
    return (table[:, 0].copy() if features == 1 else table), least


def _fold_width(sizes: Sequence[int]) -> int:
    """The length of the parts that tensors of these sizes are cut into; 0 where comparing each entry is faster.

    The grids of a YOLO have 16 : 4 : 1 cells, so the coarsest tensor is one part, or a few.
    """
    total, width = sum(sizes), math.gcd(*sizes)
    while width % 2 == 0 and (width > MAX_FOLD_WIDTH or total // width < FOLDS[0]):
        width //= 2
    return width if total >= FOLD_MIN and FOLDS[0] <= total // width <= FOLDS[1] else 0


def _weight_table(spec: OutputSpec, reg_max: int) -> np.ndarray | None:
    """(256,) float32: for every code exp(real), the weight of its bin, or the distance; None where no table works.

    A factor common to all bins cancels in the softmax, so exp(real) may be scaled freely. Where the scale of the codes
    is so large that float32 cannot hold all values, each side must be scaled by its own largest bin instead.
    """
    if spec.dtype != "uint8" or np.size(spec.scale) > 1 or np.size(spec.zero_point) > 1:
        return None
    if reg_max == 1:
        distance = dequantize(np.arange(256), spec.scale, spec.zero_point)
        return distance if np.abs(distance).max() < 1e6 else None
    exponent = (np.arange(256) - 127.5) * np.asarray(spec.scale, np.float64)
    return np.exp(exponent).astype(np.float32) if exponent[-1] <= SAFE_EXPONENT else None


def _logit(p: float) -> float:
    with np.errstate(divide="ignore"):
        return float(np.log(p) - np.log1p(-p))
