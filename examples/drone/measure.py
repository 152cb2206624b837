#!/usr/bin/env python3
"""Average precision of models on labelled pictures: the same as validate_hef.py MODEL ... --data FILE.

measure.py examples/drone/drone.onnx drone.emulated.onnx --data examples/drone/data.yaml
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import validate_hef
from hefkit import cli

if __name__ == "__main__":
    cli.run(validate_hef.main)
