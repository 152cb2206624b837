"""Check the machine before a long run: system, processor, memory, disk, graphics card.

nvidia-smi also shows a card that the SDK's TensorFlow cannot use, because pip installed TensorFlow without CUDA's
libraries. So hefkit asks TensorFlow itself, in a process of its own: the SDK's must not have computed before it forks.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hefkit.errors import DataError, ToolchainError
from hefkit.pictures.memory import CGROUPS
from hefkit.signals import run_process

GIB = 1 << 30
# The SDK says at its first start that it needs 16 GB. Below the lower bound even TensorFlow and the parsed network do
# not fit.
LITTLE_MEMORY, TOO_LITTLE_MEMORY = 16_000_000_000, 2 * GIB
LITTLE_DISK, TOO_LITTLE_DISK = 4 * GIB, GIB // 2  # without the calibration pictures: HARs, logs, the HEF
NO_GPU = "99"  # the value of CUDA_VISIBLE_DEVICES that the SDK itself sets when it finds no card
NVIDIA_S = 30
ASK_S = 300  # seconds for TensorFlow to say where it computes: its import alone takes up to a minute

# must run on Python 3.8; it computes a convolution, because a card without cuDNN is listed and fails only there
ASK_TENSORFLOW = """
import json, sys
sys.path[:] = [p for p in sys.path if p]
import tensorflow as tf
x = tf.nn.conv2d(tf.ones([1, 8, 8, 3]), tf.ones([3, 3, 3, 4]), 1, "SAME")
print(json.dumps({"device": str(x.device)}))
"""
NO_CUDA = (
    "install the CUDA libraries that its TensorFlow needs in the SDK's environment: pip install "
    "'tensorflow[and-cuda]==2.18.0' for SDK 3.33 (the same version as installed for others)"
)


@dataclass(frozen=True)
class Gpu:
    """A graphics card as nvidia-smi lists it."""

    index: str
    name: str
    free_mib: int


def check_platform(system: str, machine: str) -> None:
    """Refuse (exit 5) a system on which the SDK does not run."""
    if system != "Linux" or machine.lower() not in ("x86_64", "amd64"):
        raise ToolchainError(
            f"this is {system} on {machine}, and Hailo's SDK needs x86_64 Linux (or WSL2); compile on such a machine "
            "and copy the HEF; --emulate works here"
        )


def check_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """A warning where the processor lacks AVX, without which TensorFlow ends with an illegal instruction."""
    with contextlib.suppress(OSError):
        flags = [line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")]
        if flags and "avx" not in flags[0].split():
            return ["this processor has no AVX, and Hailo's SDK will probably end with an illegal instruction"]
    return []


def check_memory(available: int | None, calibration_bytes: int) -> list[str]:
    """Refuse (exit 5) too little memory, warn of little memory.

    Args:
        available: bytes, or None where that is not known.
        calibration_bytes: size of the pictures in the SDK's memory.
    """
    if available is None:
        return []
    have = f"{available / GIB:.1f} GiB of memory are free"
    if available < TOO_LITTLE_MEMORY + calibration_bytes:
        need = (TOO_LITTLE_MEMORY + calibration_bytes) / GIB
        raise ToolchainError(
            f"{have}, and Hailo's SDK needs at least {need:.1f} GiB with these calibration pictures; expected 16 GiB "
            "or more; close other programs, use fewer pictures (--num-samples) or another machine"
        )
    if available < LITTLE_MEMORY:
        return [f"{have}; Hailo's SDK asks for 16 GB (32 GB recommended), and the kernel ends it if the memory is full"]
    return []


def check_disk(folder: Path, calibration_bytes: int) -> list[str]:
    """Refuse (exit 3) a disk that is almost full, warn of one that may become full."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    have = f"{free / GIB:.1f} GiB are free on the disk of {folder}"
    if free < TOO_LITTLE_DISK + calibration_bytes:
        need = (TOO_LITTLE_DISK + calibration_bytes) / GIB
        raise DataError(
            f"the disk is almost full: {have}, and the run folder needs at least {need:.1f} GiB; expected "
            f"{(LITTLE_DISK + calibration_bytes) / GIB:.0f} GiB or more; free some space or choose another --run-dir"
        )
    if free < LITTLE_DISK + calibration_bytes:
        return [f"{have}; logs and archives of a compilation take up to {LITTLE_DISK // GIB} GiB"]
    return []


def oom_kills(cgroups: Path = CGROUPS, vmstat: Path = Path("/proc/vmstat")) -> int:
    """How many processes the kernel has ended because the memory was full; 0 if it keeps no such number."""
    for path in (vmstat, cgroups / "memory.events", cgroups / "memory" / "memory.oom_control"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in path.read_text().splitlines():
                if line.split()[0] == "oom_kill":
                    return int(line.split()[1])
    return 0


def choose_gpu() -> tuple[dict[str, str], str]:
    """(environment variables, a text for the console): the card with most free memory, or none.

    A value that the user has set is kept. By itself the SDK takes the least used card, but none whose memory is more
    than 5 % full. So it ignores a card that also drives a screen, and lowers the level to 0 without a message.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return {"CUDA_VISIBLE_DEVICES": given}, f"CUDA_VISIBLE_DEVICES is {given!r}, as you have set it"
    cards = gpus()
    if not cards:
        return {"CUDA_VISIBLE_DEVICES": NO_GPU}, "no NVIDIA card found: the SDK computes on the processor"
    best = max(cards, key=lambda card: card.free_mib)
    # CUDA numbers the fastest card first; nvidia-smi numbers by slot
    chosen = {"CUDA_VISIBLE_DEVICES": best.index, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return chosen, f"graphics card {best.index}, {best.name}, {best.free_mib / 1024:.1f} GiB free"


def computes_on_card(python: Path, environment: Mapping[str, str]) -> tuple[bool | None, str]:
    """(whether the SDK's TensorFlow computes on a graphics card, its own words); None where it does not answer."""
    try:
        done = run_process([str(python), "-c", ASK_TENSORFLOW], ASK_S, cwd=os.sep, env=environment)
        said = (done.stderr.strip() or "nothing").splitlines()[-1]
        if done.returncode != 0:
            return None, said
        device = str(json.loads(done.stdout.strip().splitlines()[-1])["device"])
    except subprocess.TimeoutExpired:
        return None, f"no answer within {ASK_S} s"
    except (OSError, ValueError, IndexError, KeyError, TypeError) as exc:
        return None, str(exc)
    return "GPU" in device.upper(), device


def gpus() -> list[Gpu]:
    """NVIDIA's cards; an empty list where nvidia-smi is missing or fails."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        done = run_process([tool, "--query-gpu=index,name,memory.free", "--format=csv,noheader,nounits"], NVIDIA_S)
    except (OSError, subprocess.TimeoutExpired):
        return []
    cards = []
    for line in done.stdout.splitlines() if done.returncode == 0 else []:
        parts = [part.strip() for part in line.split(",")]
        with contextlib.suppress(ValueError, IndexError):
            cards.append(Gpu(parts[0], ",".join(parts[1:-1]), int(parts[-1])))
    return cards
