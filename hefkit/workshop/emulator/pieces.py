"""The sigmoid as the chip computes it: nine straight pieces on the accumulator [M].

It differs from the exact sigmoid by at most 0.0063, 1.6 codes of 1/255. Below -5.54 it is zero. It jumps there by
0.002; at the other breaks the pieces meet. The pieces of SiLU and of other curves have not been seen, so the emulator
computes those exactly [I].
Marks: [M] measured in archives of SDK 3.33 (hailo8, level 0), [I] inferred, not seen there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hefkit.workshop.emulator.arithmetic import ACCUMULATOR, MANTISSA

OUTPUT_SHIFT = 3  # bits behind the point of the coded offsets [M]
EXPONENT_SHIFT = {8: 7, 15: 11}  # bits -> added to every exponent [M]


@dataclass(frozen=True)
class Pieces:
    """y = offsets[n] + slopes[n] * x between breaks[n - 1] and breaks[n]."""

    breaks: np.ndarray  # (N - 1,) ascending
    offsets: np.ndarray  # (N,)
    slopes: np.ndarray  # (N,)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The function of real values, any shape, float64."""
        piece = np.searchsorted(self.breaks, x, side="right")
        return self.offsets[piece] + self.slopes[piece] * np.asarray(x, np.float64)


@dataclass(frozen=True)
class CodedPieces:
    """The same on integers: code = (mantissa * 2**-(exponent + shift) * sum + offset) / 2**OUTPUT_SHIFT."""

    breaks: np.ndarray  # (N - 1,) in steps of the shifted sum
    offsets: np.ndarray  # (N,) in eighths of an output code
    mantissas: np.ndarray  # (N,) 0, or 512..1024
    exponents: np.ndarray  # (N,) at least 1


def _sigmoid_pieces() -> Pieces:
    """The half right of zero as the archives hold it, mirrored at (0, 0.5)."""
    breaks = np.array([0.9916401505470276, 1.9061697721481323, 3.0992729663848877, 5.537334442138672])
    slopes = np.array([0.2341219186782837, 0.15622302889823914, 0.07317875325679779, 0.016277799382805824, 0.0])
    offsets = np.array([0.5, 0.577247679233551, 0.7355441451072693, 0.911895751953125, 1.0])
    return Pieces(
        np.concatenate([-breaks[::-1], breaks]),
        np.concatenate([1 - offsets[:0:-1], offsets]),
        np.concatenate([slopes[:0:-1], slopes]),
    )


SIGMOID = _sigmoid_pieces()  # [M] the same numbers for 8 and 15 bits


def coded(pieces: Pieces, accumulator_scale: float, output_scale: float, zero_point: int, bits: int = 8) -> CodedPieces:
    """The integers that the compiler stores for `pieces` [M].

    Args:
        accumulator_scale: real value of one step of the shifted sum.
        output_scale, zero_point: of the codes that the layer writes.
    """
    limit = ACCUMULATOR[bits]
    breaks = np.rint(pieces.breaks.astype(np.float32) / np.float32(accumulator_scale)).astype(np.float64)
    offsets = np.rint((pieces.offsets / output_scale + zero_point) * 2**OUTPUT_SHIFT)
    slopes = np.abs(pieces.slopes) * (accumulator_scale / output_scale)
    flat = slopes == 0
    exponents = MANTISSA - 1 - np.floor(np.log2(np.where(flat, 1.0, slopes)))
    shift = EXPONENT_SHIFT[bits] + OUTPUT_SHIFT
    mantissas = np.rint(np.where(flat, 0.0, slopes) * 2.0**exponents)
    return CodedPieces(
        np.clip(breaks, -limit, limit).astype(np.int64),
        offsets.astype(np.int64),
        (np.sign(pieces.slopes) * mantissas).astype(np.int64),
        np.where(flat, 1, exponents - shift).astype(np.int64),
    )
