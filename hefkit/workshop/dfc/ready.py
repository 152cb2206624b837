"""Find Hailo's SDK and check chip, versions and machine: everything that can be known before its first real call."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hefkit.chips import TARGETS
from hefkit.errors import ToolchainError
from hefkit.pictures.memory import available_memory
from hefkit.text import log, one_line
from hefkit.workshop.dfc import machine
from hefkit.workshop.dfc.client import ARRAY_BYTES
from hefkit.workshop.dfc.find import Sdk, find_sdk
from hefkit.workshop.dfc.process import sdk_environment
from hefkit.workshop.dfc.versions import check_arch, check_python, hailort_for


@dataclass
class Ready:
    """An SDK that passed the checks and may be started."""

    sdk: Sdk
    settings: dict[str, str]  # environment variables
    device: str  # where it computes, as a text
    version: str | None  # from its package; after its start, from the SDK itself
    has_card: bool = False  # its TensorFlow computes on a graphics card, or has not answered

    def check_started(self, facts: Mapping[str, Any], arch: str) -> list[str]:
        """Check the chip again, with the version and the chips that the running SDK names; returns warnings.

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
    def hailort(self) -> str | None:
        """The HailoRT version that runs its HEFs, if known."""
        return hailort_for(self.version)

    def to_json(self) -> dict[str, Any]:
        """For job.json and report.json."""
        return {**self.sdk.to_json(), "version": self.version, "settings": self.settings, "device": self.device}


def get_ready(
    flag: Path | None, arch: str, run_dir: Path, calibration: tuple[int, int], warn: Callable[[str], None]
) -> Ready:
    """Find the SDK and check that it can work here.

    Args:
        flag: --sdk-python.
        calibration: bytes of the calibration pictures, as uint8 on the disk and as float32 in memory.

    Raises:
        ToolchainError: there is no SDK, or it is for other chips, or its Python or this machine does not fit.
        DataError: the disk is full.
    """
    sdk = find_sdk(flag)
    machine.check_platform(sdk.system, sdk.machine)
    on_disk, in_memory = calibration[0], calibration[1] if calibration[1] <= ARRAY_BYTES else calibration[0]
    for text in (
        *check_arch(sdk.version, arch),
        *check_python(sdk.version, sdk.python_version, str(sdk.python)),
        *machine.check_processor(),
        *machine.check_memory(available_memory(), in_memory),
        *machine.check_disk(run_dir, on_disk),
    ):
        warn(text)
    settings, device = machine.choose_gpu()
    libraries = [*map(str, sdk.libraries()), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    if libraries:
        settings["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
    has_card = settings.get("CUDA_VISIBLE_DEVICES") not in (machine.NO_GPU, "", "-1")
    if has_card:
        log.info("  asking the SDK's TensorFlow where it computes")
        answer, said = machine.computes_on_card(sdk.python, sdk_environment(sdk.python, settings))
        has_card = answer is not False
        if answer is None:
            warn(f"the SDK's TensorFlow does not say where it computes: {one_line(said, 300)}")
        elif not answer:
            warn(f"{device}; but the SDK's TensorFlow computes on the processor ({said}); {machine.NO_CUDA}")
            device = "the SDK computes on the processor"
    return Ready(sdk, settings, device, sdk.version, has_card)
