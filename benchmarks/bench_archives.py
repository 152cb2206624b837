#!/usr/bin/env python3
"""Our arithmetic beside the compiler's own: does it compute the same integers?

  bench_archives.py ../shared/hailo/*          unpacked quantised archives, a folder each
  bench_archives.py DIR --json

The left half is given the archive's input and output scales and the weights that were quantised; the rest is
arithmetic. The right half, `predicted`, and the range have the float network and the statistics alone. Ratios are
ours / the archive's. Layers without weights have no row, unless they are of a kind that is not understood.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from hefkit import cli
from hefkit.text import counted
from hefkit.workshop.emulator.arithmetic import LayerNumbers, layer_numbers
from tests.helpers.archive_prediction import NOT_UNDERSTOOD, Prediction
from tests.helpers.hailo_archive import WEIGHTED, Archive, Layer

CLOSE = 1e-4  # ratios that differ from 1 by more are named in `why`
PREDICTED = ("scale_median_ratio", "scale_worst_ratio", "kernel_snr_db", "kernel_snr_db_archive")
Row = dict[str, Any]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = cli.Parser(__doc__)
    parser.add_argument("archives", nargs="+", type=Path, metavar="DIR", help="with hn.json, fpo.npz, ho.npz, q.npz")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare every layer of every archive."""
    args = parse_args(argv)
    results = [compared(Archive(folder)) for folder in args.archives]
    if args.json:
        cli.print_json({"archives": results})
        return 0
    for result in results:
        sys.stdout.write(f"{result['name']}\n{HEADINGS}\n" + "".join(f"{line(row)}\n" for row in result["layers"]))
    return 0


def compared(archive: Archive) -> Row:
    """The JSON object of one archive."""
    predicted = Prediction(archive)
    rows = []
    for layer in archive.layers.values():
        if layer.kind in WEIGHTED:
            rows.append(weighted_row(layer, predicted))
        elif layer.kind != "input_layer" and not layer.moves_codes and not layer.widens:
            rows.append(empty_row(layer, f"layers of kind {layer.kind!r} are not understood"))
    return {"name": archive.name, "layers": rows}


def empty_row(layer: Layer, why: str) -> Row:
    """A row without figures."""
    figures = ("bits", "codes_equal", "k_ratio", "zero_point_equal", "bias_equal", "mac_shift_equal", "range_ratio")
    return {"name": layer.name, **dict.fromkeys(figures), "why": why, "predicted": dict.fromkeys(PREDICTED)}


def weighted_row(layer: Layer, predicted: Prediction) -> Row:
    """Both halves of one layer with weights."""
    row = empty_row(layer, "")
    reasons = []
    try:
        row["bits"] = layer.bits
        row.update(given_half(layer))
        reasons += differences(layer, row)
    except NOT_UNDERSTOOD as exc:
        reasons.append(f"not compared: {exc}")
    try:
        numbers = predicted.numbers[layer.name]
        row["zero_point_equal"] = numbers.output.zero_point == layer.output.zero_point
        low, high = numbers.output.span
        row["range_ratio"] = (high - low) / layer.span
        row["predicted"] = predicted_half(layer, numbers)
        if abs(row["range_ratio"] - 1) > CLOSE:
            reasons.append(f"the archive's range is {1 / row['range_ratio']:.4g} times as wide")
    except NOT_UNDERSTOOD as exc:
        reasons.append(predicted.why.get(layer.name, f"not predicted: {exc}"))
    return {**row, "why": "; ".join(reasons) or None}


def given_half(layer: Layer) -> Row:
    """Codes, K, biases and shift from the archive's own scales."""
    ours = layer_numbers(layer.optimised, layer.input_scale, layer.bits, output=layer.output)
    factor = int(layer.value("bias_add_op/bias_factor_0"))
    same = (ours.bias_codes == layer.value("bias", "q").reshape(-1)) & (ours.bias_factor == factor)
    return {
        "codes_equal": float((ours.codes == layer.codes).mean()),
        # both have the same S_out / S_in in them, so this is the ratio of K as well
        "k_ratio": float(np.median(ours.kernel_scale / layer.kernel_scale)),
        "bias_equal": float(same.mean()),
        "mac_shift_equal": ours.mac_shift == int(layer.value("conv_op/mac_shift")),
    }


def differences(layer: Layer, row: Row) -> list[str]:
    """Why the given half is not what the archive holds, as far as that can be said."""
    reasons = []
    changed = (layer.optimised.weight != layer.float_layer.weight).reshape(len(layer.codes), -1).any(axis=1)
    changed |= layer.optimised.bias != layer.float_layer.bias
    if changed.any():
        reasons.append(
            f"the compiler changed the weights of {counted(int(changed.sum()), 'channel')} in a way not known"
        )
    if abs(row["k_ratio"] - 1) > CLOSE:
        reasons.append("K is not reproduced")
    elif row["codes_equal"] < 1:
        reasons.append("weight codes differ with the same K")
    if row["bias_equal"] < 1:
        reasons.append("bias codes or their factor differ")
        if layer.value("conv_op/input_zero_point:0").any():
            reasons.append("the input's zero point is not 0, and its part in the bias is not known")
    if not row["mac_shift_equal"]:
        reasons.append(f"mac_shift is {int(layer.value('conv_op/mac_shift'))} there")
    if layer.entry.get("params", {}).get("elementwise_add"):
        reasons.append("an addition is fused into the layer, whose part in K is not known")
    return reasons


def predicted_half(layer: Layer, ours: LayerNumbers) -> Row:
    """Output scales by channel, and the signal-to-noise ratio of the weights."""
    ratios = np.broadcast_to(np.asarray(ours.output.scale), layer.output.scale.shape) / layer.output.scale
    weight = layer.optimised.weight.astype(np.float64)
    zero_point = int(layer.value("conv_op/kernel_zero_point"))
    theirs = (layer.codes.astype(np.float64) - zero_point) * layer.kernel_scale
    return {
        "scale_median_ratio": float(np.median(ratios)),
        "scale_worst_ratio": float(ratios[np.abs(np.log(ratios)).argmax()]),
        "kernel_snr_db": snr_db(weight, ours.weight),
        "kernel_snr_db_archive": snr_db(weight, theirs),
    }


def snr_db(exact: np.ndarray, rounded: np.ndarray) -> float | None:
    """10 log10 of signal over noise power; None where there is no noise."""
    noise = float(((exact - rounded) ** 2).sum())
    signal = float((exact**2).sum())
    return 10 * float(np.log10(signal / noise)) if noise > 0 and signal > 0 else None


HEADINGS = (
    "  layer                bits  codes   K ratio    zp   bias    shift range     predicted: S median worst    "
    "kernel dB, archive's"
)


def line(row: Row) -> str:
    """A row for people."""
    predicted = row["predicted"]
    cells = [
        f"  {row['name'].rpartition('/')[2]:20}",
        f"{shown(row['bits'], 'd'):>4}",
        f"{shown(row['codes_equal'], '.3%'):>8}",
        f"{shown(row['k_ratio'], '.7f'):>9}",
        f"{shown(row['zero_point_equal']):>5}",
        f"{shown(row['bias_equal'], '.2%'):>7}",
        f"{shown(row['mac_shift_equal']):>5}",
        f"{shown(row['range_ratio'], '.6f'):>8}",
        *(f"{shown(predicted[key], '.6f'):>12}" for key in PREDICTED[:2]),
        *(f"{shown(predicted[key], '.2f'):>8}" for key in PREDICTED[2:]),
    ]
    return " ".join(cells) + (f"   {row['why']}" if row["why"] else "")


def shown(value: float | bool | None, form: str = "") -> str:
    """A figure, yes or no, or a dash where there is none."""
    if value is None:
        return "-"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"{value:{form}}"


if __name__ == "__main__":
    cli.run(main)
