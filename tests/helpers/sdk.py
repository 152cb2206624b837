"""The double of Hailo's SDK as a separate environment: an executable that runs Python with the double on its path.

    python = make_sdk(tmp_path, version="3.33.1", four_bit=["conv5"])
    run_script("compile_to_hef.py", ..., "--sdk-python", python)

The interpreter of the tests cannot import the double; its folder is only on the path of that executable.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

DOUBLE = ROOT / "tests" / "doubles" / "sdk"
# it runs on the tests' Python; known releases end with 3.12, and an unknown release is only a warning
SDK_VERSION = "3.33.1" if sys.version_info < (3, 13) else "3.35.0"


def make_sdk(
    folder: Path,
    version: str = SDK_VERSION,
    *,
    python: Path | str = sys.executable,
    name: str = "sdk",
    **behaviour: Any,
) -> Path:
    """An SDK environment below `folder`; returns its Python.

    Args:
        version: of its package's metadata and `hailo_sdk_client.__version__`.
        behaviour: its faults; see tests/doubles/sdk/double_parts/behaviour.py.
    """
    home = folder / name
    info = home / "site" / f"hailo_dataflow_compiler-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: hailo-dataflow-compiler\nVersion: {version}\n")
    (home / "behaviour.json").write_text(json.dumps(behaviour))
    executable = home / "bin" / "python"
    executable.parent.mkdir()
    executable.write_text(
        "#!/bin/sh\n"
        f'PYTHONPATH="{home / "site"}:{DOUBLE}" HAILO_DOUBLE="{home / "behaviour.json"}" '
        f'exec "{python}" "$@"\n'
    )
    executable.chmod(0o755)
    return executable
