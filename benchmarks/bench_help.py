#!/usr/bin/env python3
"""How long `--help` takes, script by script, beside a bare `python -c pass` measured in the same run.

python3 benchmarks/bench_help.py
python3 benchmarks/bench_help.py --json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = 15
BASELINE = "python -c pass"


def main() -> None:
    """Time every command in turn, RUNS times over, so that a busy moment hits all of them alike."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of the table")
    args = parser.parse_args()
    commands = {BASELINE: [sys.executable, "-c", "pass"]}
    for script in sorted(ROOT.glob("*.py")):
        commands[f"{script.name} --help"] = [sys.executable, str(script), "--help"]
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(RUNS):
        for name, command in commands.items():
            times[name].append(seconds(command))
    medians = {name: 1000 * statistics.median(taken) for name, taken in times.items()}
    if args.json:
        results = [{"command": name, "median_ms": round(ms, 1)} for name, ms in medians.items()]
        sys.stdout.write(json.dumps({"runs": RUNS, "baseline": BASELINE, "results": results}) + "\n")
        return
    sys.stdout.write(f"median of {RUNS} runs, milliseconds\n")
    for name, ms in medians.items():
        sys.stdout.write(f"{name:<36}{ms:8.1f}\n")


def seconds(command: list[str]) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
