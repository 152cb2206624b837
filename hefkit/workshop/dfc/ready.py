"""Is Hailo's SDK ready for this chip and this machine? Everything that can be known before its first real call."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hefkit.chips import TARGETS
from hefkit.errors import ToolchainError
from hefkit.text import one_line
from hefkit.workshop.dfc import calls as sdkapi
from hefkit.workshop.dfc import machine
from hefkit.workshop.dfc.client import ARRAY_BYTES, Dfc
from hefkit.workshop.dfc.find import Sdk, find_sdk
from hefkit.workshop.dfc.versions import check_arch, check_python, hailort_for

log = logging.getLogger("hefkit")


@dataclass
class Ready:
    """An SDK that may be started."""

    sdk: Sdk
    settings: dict[str, str]  # environment variables
    device: str  # what it computes on, in words
    version: str | None  # corrected by the SDK itself once it runs

    def check_started(self, facts: Mapping[str, Any], arch: str) -> list[str]:
        """Once more, with what the running SDK says of itself.

        Raises:
            ToolchainError: it does not compile for `arch`.
        """
        warnings = []
        if facts.get("sdk") and facts["sdk"] != self.version:
            self.version = str(facts["sdk"])
            warnings = check_arch(self.version, arch)
        archs = [name for name in facts.get("archs") or [] if name in TARGETS]
        if archs and arch not in archs:
            raise ToolchainError(
                f"Hailo's SDK {self.version} says that it compiles for {', '.join(archs)}, and not for {arch}; "
                "expected a version for that chip; name its Python with --sdk-python, or choose another --hw-arch"
            )
        return warnings

    @property
    def has_gpu(self) -> bool:
        """Will the SDK see a graphics card?"""
        return self.settings.get("CUDA_VISIBLE_DEVICES") not in (machine.NO_GPU, "", "-1")

    @property
    def hailort(self) -> str | None:
        """The HailoRT that belongs to this SDK, if known."""
        return hailort_for(self.version)

    def to_json(self) -> dict[str, Any]:
        """For job.json and report.json."""
        return {**self.sdk.to_json(), "version": self.version, "settings": self.settings, "device": self.device}


def get_ready(
    flag: Path | None, arch: str, run_dir: Path, calibration: tuple[int, int], warn: Callable[[str], None]
) -> Ready:
    """Find the SDK and check what it needs.

    Args:
        flag: --sdk-python.
        calibration: bytes of the calibration pictures, as uint8 on the disk and as float32 in memory.

    Raises:
        ToolchainError: no SDK, or one for other chips, on a wrong Python or machine, or too little memory.
        DataError: the disk is full.
    """
    sdk = find_sdk(flag)
    machine.check_platform(sdk.system, sdk.machine)
    on_disk, in_memory = calibration[0], calibration[1] if calibration[1] <= ARRAY_BYTES else calibration[0]
    for text in (
        *check_arch(sdk.version, arch),
        *check_python(sdk.version, sdk.python_version, str(sdk.python)),
        *machine.check_processor(),
        *machine.check_memory(machine.available_memory(), in_memory),
        *machine.check_disk(run_dir, on_disk),
    ):
        warn(text)
    settings, device = machine.choose_gpu()
    return Ready(sdk, settings, device, sdk.version)


def check_sdk(ready: Ready, arch: str, warn: Callable[[str], None]) -> list[dict[str, str | None]]:
    """Start the SDK once, and hold its calls against ours; what --check prints and adds to --json."""
    log.info("  Hailo's SDK %s in %s; %s", ready.version or "of no known version", ready.sdk.python, ready.device)
    with tempfile.TemporaryDirectory(prefix="hefkit-") as folder, Dfc(ready.sdk, Path(folder), ready.settings) as dfc:
        facts = dfc.start()
        for text in ready.check_started(facts, arch):
            warn(text)
        findings = sdkapi.compare(dfc.signatures([call.name for call in sdkapi.CALLS]))
    for line in sdkapi.lines(findings):
        log.info("%s", line)
    different = [f.call.name for f in findings if f.verdict.startswith(("missing", "differs")) and not f.call.optional]
    if different:
        warn(f"this SDK's calls differ from what hefkit expects: {one_line(', '.join(different))}")
    return [finding.to_json() for finding in findings]
