"""Where the SDK is found, what goes with what, and whether the machine will do; no SDK is imported for any of it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from hefkit.errors import DataError, ToolchainError
from hefkit.workshop.dfc import machine
from hefkit.workshop.dfc.find import NO_SDK, find_sdk
from hefkit.workshop.dfc.ready import get_ready
from hefkit.workshop.dfc.versions import check_arch, check_python, hailort_for, parse_version, release_of
from tests.helpers.sdk import make_sdk

PYTHON = sys.version_info[:2]


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder, and no SDK in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HAILO_SDK_PYTHON", raising=False)


def test_the_order_of_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--sdk-python, HAILO_SDK_PYTHON, this Python, .venv_hailo_full/bin/python: the first that is there counts."""
    flag, variable = make_sdk(tmp_path, "3.30.0", name="a"), make_sdk(tmp_path, "3.31.0", name="b")
    make_sdk(tmp_path, "3.33.1", name=".venv_hailo_full")

    assert (find_sdk().version, find_sdk().why) == ("3.33.1", ".venv_hailo_full/bin/python")
    own = tmp_path / "own"
    (own / "hailo_sdk_client").mkdir(parents=True)
    (own / "hailo_sdk_client" / "__init__.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(own)
    monkeypatch.setenv("PYTHONPATH", str(own))
    assert (find_sdk().python, find_sdk().why, find_sdk().version) == (Path(sys.executable), "this Python", None)
    monkeypatch.setenv("HAILO_SDK_PYTHON", str(variable))
    assert (find_sdk().version, find_sdk().why) == ("3.31.0", "HAILO_SDK_PYTHON")
    found = find_sdk(flag)
    assert (found.version, found.why, found.python_version) == ("3.30.0", "--sdk-python", PYTHON)


def test_without_an_sdk() -> None:
    """One sentence: where a HEF comes from, and what works without."""
    with pytest.raises(ToolchainError, match="only from") as caught:
        find_sdk()

    assert str(caught.value) == NO_SDK and "--emulate" in NO_SDK


def test_ways_to_name_an_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Python, its folder, or a name on PATH; a link is not resolved, it is what makes an environment one."""
    python = make_sdk(tmp_path)
    link = tmp_path / "hailo-python"
    link.symlink_to(python)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    assert find_sdk(python.parent.parent).python == python
    assert find_sdk(link).python == link
    assert find_sdk(Path("hailo-python")).python == link


WRONG = {
    "does not exist": ("gone/bin/python", None, "does not exist"),
    "not executable": ("text", "no program", "cannot be run as a Python"),
    "no Python": ("sh", "#!/bin/sh\necho hello\n", "cannot be run as a Python"),
    "fails": ("fails", "#!/bin/sh\necho broken >&2; exit 3\n", "is not Python 3.8 or newer: broken"),
    "no SDK": ("bare", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', "has no Hailo SDK"),
}


@pytest.mark.parametrize("name, content, words", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_sdk_python(tmp_path: Path, name: str, content: str | None, words: str) -> None:
    """Who names an interpreter does not get another one instead: exit 5, and the flag in the message."""
    make_sdk(tmp_path, name=".venv_hailo_full")
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
        path.chmod(0o644 if name == "text" else 0o755)

    with pytest.raises(ToolchainError, match=words) as caught:
        find_sdk(path)

    assert "--sdk-python" in str(caught.value) and "\n" not in str(caught.value)


def test_the_folder_it_is_run_in_is_no_sdk(tmp_path: Path) -> None:
    """A folder of the SDK's name beside the user's files is not taken for the package."""
    (tmp_path / "hailo_sdk_client").mkdir()
    (tmp_path / "hailo_sdk_client" / "__init__.py").write_text("")
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    bare.chmod(0o755)

    with pytest.raises(ToolchainError, match="has no Hailo SDK"):
        find_sdk(bare)


def fake_python(folder: Path, **facts: object) -> Path:
    """An interpreter that answers the probe with these facts."""
    path = folder / "fake"
    usual = {
        "python": [3, 10],
        "found": True,
        "numpy": "1.26.4",
        "sdk": "3.33.1",
        "system": "Linux",
        "machine": "x86_64",
    }
    path.write_text(f"#!/bin/sh\necho '{json.dumps({**usual, **facts})}'\n")
    path.chmod(0o755)
    return path


def test_an_sdk_in_dist_packages(tmp_path: Path) -> None:
    """There the compile fails at its very end, after hours: refused before anything starts, with the way out."""
    place = "/usr/local/lib/python3.10/dist-packages/hailo_sdk_client"

    with pytest.raises(ToolchainError, match="below a site-packages") as caught:
        find_sdk(fake_python(tmp_path, place=place))

    assert "/usr/local/lib/python3.10/dist-packages" in str(caught.value) and "-m venv" in str(caught.value)


def test_libraries_that_the_tools_need(tmp_path: Path) -> None:
    """Those of or-tools, and of the CUDA that pip installs, where they are there; nothing where they are not."""
    site = tmp_path / "lib" / "python3.10" / "site-packages"
    place = str(site / "hailo_sdk_client")
    assert find_sdk(fake_python(tmp_path, place=place)).libraries() == []
    assert find_sdk(fake_python(tmp_path, place=None)).libraries() == []
    tools, cuda = site / "hailo_tools/or-tools/dependencies/install/lib", site / "nvidia/cudnn/lib"
    for folder in (tools, cuda):
        folder.mkdir(parents=True)

    assert find_sdk(fake_python(tmp_path, place=place)).libraries() == [tools, cuda]


def test_the_environment_of_hailo_s_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found without a flag, after everything that the user may have chosen."""
    docker = make_sdk(tmp_path, "3.32.0", name="hailo_virtualenv")
    monkeypatch.setattr("hefkit.workshop.dfc.find.DOCKER_VENV", docker)

    assert (find_sdk().version, find_sdk().why) == ("3.32.0", str(docker))
    make_sdk(tmp_path, "3.33.1", name=".venv_hailo_full")
    assert find_sdk().version == "3.33.1"


def test_an_sdk_without_numpy(tmp_path: Path) -> None:
    """Half an environment is told as one."""
    half = tmp_path / "half"
    facts = {"python": [3, 10], "found": True, "numpy": None, "sdk": "3.33.1", "system": "Linux", "machine": "x"}
    half.write_text(f"#!/bin/sh\necho '{json.dumps(facts)}'\n")
    half.chmod(0o755)

    with pytest.raises(ToolchainError, match="no numpy"):
        find_sdk(half)


# --- versions ---------------------------------------------------------------------------------------------------------

ARCHS = {
    "3.33 for the 8": ("3.33.1", "hailo8", True),
    "3.33 for the 8L": ("3.33.0", "hailo8l", True),
    "3.33 for the 10H": ("3.33.1", "hailo10h", False),
    "3.32 for the 15H": ("3.32.0", "hailo15h", False),
    "3.31 for the 15H": ("3.31.0", "hailo15h", True),
    "3.30 for the 10H": ("3.30.0", "hailo10h", True),
    "5.2 for the 10H": ("5.2.0", "hailo10h", True),
    "5.2 for the 8": ("5.2.0", "hailo8", False),
    "5.1 for the 15L": ("5.1.0", "hailo15l", False),
    "5.2 for the 15L": ("5.2.0", "hailo15l", True),
    "older than known, for the 8L": ("3.27.0", "hailo8l", True),
    "3.34 for the 8L": ("3.34.0", "hailo8l", True),
    "3.34 for the 10H": ("3.34.0", "hailo10h", False),
    "5.4 for the 10H": ("5.4.0", "hailo10h", True),
    "5.3 for the 8L": ("5.3.0", "hailo8l", False),
    "newer than known, for the 8": ("3.35.0", "hailo8", True),
}


@pytest.mark.parametrize("version, arch, fits", ARCHS.values(), ids=ARCHS.keys())
def test_versions_and_chips(version: str, arch: str, fits: bool) -> None:
    """The Model Zoo's table; a mismatch names the line of releases that is needed."""
    if fits:
        assert check_arch(version, arch) == []
        return
    with pytest.raises(ToolchainError, match="not for") as caught:
        check_arch(version, arch)

    needed = "version 3.x" if arch in ("hailo8", "hailo8l") else "version 5.x"
    assert needed in str(caught.value) and version in str(caught.value)
    assert ("such as 3.34" if needed == "version 3.x" else "such as 5.4") in str(caught.value)


def test_what_nobody_knows_is_only_warned_of() -> None:
    """A release that came after hefkit counts as the last one known; one of no version may do anything."""
    assert release_of("3.35.0")[0] == release_of("3.34.0")[0] and not release_of("3.35.0")[1]
    assert [release_of(v)[1] for v in ("3.34.0", "5.3.0", "5.4.1")] == [True, True, True]
    assert "does not know the SDK version" in check_arch(None, "hailo8")[0]
    assert "does not know" in check_arch("7.0.0", "hailo8")[0]
    assert (parse_version("3.33.1"), parse_version("3.34"), parse_version("dev")) == ((3, 33), (3, 34), None)


PYTHONS = {
    "3.33 on 3.10": ("3.33.1", (3, 10), True),
    "3.33 on 3.12": ("3.33.1", (3, 12), True),
    "3.33 on 3.13": ("3.33.1", (3, 13), False),
    "3.33 on 3.8": ("3.33.0", (3, 8), False),
    "3.30 on 3.8": ("3.30.0", (3, 8), True),
    "3.30 on 3.11": ("3.30.0", (3, 11), False),
    "5.0 on 3.10": ("5.0.0", (3, 10), True),
    "5.2 on 3.9": ("5.2.0", (3, 9), False),
    "3.34 on 3.12": ("3.34.0", (3, 12), True),
    "3.34 on 3.13": ("3.34.0", (3, 13), False),
    "5.4 on 3.9": ("5.4.0", (3, 9), False),
}


@pytest.mark.parametrize("version, python, fits", PYTHONS.values(), ids=PYTHONS.keys())
def test_versions_and_pythons(version: str, python: tuple[int, int], fits: bool) -> None:
    """A Python that the release does not run on is refused, with the way to another."""
    if fits:
        assert check_python(version, python, "py") == []
        return
    with pytest.raises(ToolchainError, match="runs on") as caught:
        check_python(version, python, "py")

    assert "-m venv" in str(caught.value) and "--sdk-python" in str(caught.value)


def test_a_newer_release_may_run_on_newer_pythons() -> None:
    """What is not known is a warning."""
    assert "runs on 3.10 to 3.12" in check_python("3.40.0", (3, 13), "py")[0]
    assert check_python(None, (3, 13), "py") == []


def test_the_runtime_that_belongs_to_it() -> None:
    """HEF and HailoRT go in pairs; nothing is claimed of releases that are not known."""
    assert [hailort_for(v) for v in ("3.33.1", "3.34.0", "5.2.0", "5.3.0", "5.4.0", "3.35.0", None)] == [
        "4.23", "4.24", "5.2", "5.3", "5.4", None, None
    ]  # fmt: skip


# --- the machine ------------------------------------------------------------------------------------------------------


def test_platforms() -> None:
    """x86_64 Linux, and nothing else."""
    machine.check_platform("Linux", "x86_64")
    for system, kind in (("Linux", "aarch64"), ("Darwin", "arm64"), ("Windows", "AMD64")):
        with pytest.raises(ToolchainError, match=kind):
            machine.check_platform(system, kind)


def test_memory() -> None:
    """Refused with numbers where nothing fits, warned of where it is tight, silent otherwise."""
    gib = 1 << 30

    assert machine.check_memory(64 * gib, gib) == [] and machine.check_memory(None, gib) == []
    [tight] = machine.check_memory(7 * gib, gib)
    assert "7.0 GiB of memory are free" in tight and "16 GB (32 GB recommended)" in tight
    assert machine.check_memory(15 * gib, gib) == [], "16 GB are 14.9 GiB"
    with pytest.raises(ToolchainError, match=r"3\.0 GiB of memory are free, and .* at least 7\.0 GiB.*--num-samples"):
        machine.check_memory(3 * gib, 5 * gib)


def test_the_kernel_s_count_of_killed_processes(tmp_path: Path) -> None:
    """Read where the kernel writes it; nothing there counts as none."""
    (tmp_path / "vmstat").write_text("nr_free_pages 1\noom_kill 3\n")

    assert machine.oom_kills(tmp_path, tmp_path / "vmstat") == 3
    assert machine.oom_kills(tmp_path, tmp_path / "gone") == 0


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full already is exit 3 before anything is written; the folder need not exist yet."""
    free = {"bytes": 100 << 30}
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": free["bytes"]}))
    folder = tmp_path / "runs" / "compile" / "new"

    assert machine.check_disk(folder, 1 << 30) == []
    free["bytes"] = 3 << 30
    assert "3.0 GiB are free on the disk" in machine.check_disk(folder, 1 << 30)[0]
    free["bytes"] = 1 << 30
    with pytest.raises(DataError, match=r"1\.0 GiB are free .* at least 1\.5 GiB.*--run-dir"):
        machine.check_disk(folder, 1 << 30)


def test_a_processor_without_avx(tmp_path: Path) -> None:
    """TensorFlow ends there with an illegal instruction; better said before."""
    (tmp_path / "new").write_text("processor: 0\nflags\t: sse avx avx2\n")
    (tmp_path / "old").write_text("processor: 0\nflags\t: sse sse2\n")

    assert machine.check_processor(tmp_path / "new") == [] and machine.check_processor(tmp_path / "gone") == []
    assert "no AVX" in machine.check_processor(tmp_path / "old")[0]


NVIDIA_SMI = "#!/bin/sh\necho '0, NVIDIA GeForce RTX 3070, 1200'\necho '1, NVIDIA A10G, 22000'\n"


def test_the_choice_of_a_graphics_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own setting, else the card with most free memory, else the SDK's word for none; always told."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine.choose_gpu()[0] == {"CUDA_VISIBLE_DEVICES": ""}

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    settings, told = machine.choose_gpu()
    assert settings == {"CUDA_VISIBLE_DEVICES": "99"} and "processor" in told
    tool = tmp_path / "nvidia-smi"
    tool.write_text(NVIDIA_SMI)
    tool.chmod(0o755)
    settings, told = machine.choose_gpu()
    assert settings == {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert "NVIDIA A10G, 21.5 GiB free" in told
    tool.write_text("#!/bin/sh\necho 'Failed to initialize NVML'; exit 9\n")
    assert machine.choose_gpu()[0] == {"CUDA_VISIBLE_DEVICES": "99"}


DEVICES = {
    "on the card": ("/device:GPU:0", True, "GPU:0"),
    "on the processor": ("/device:CPU:0", False, "CPU:0"),
    "the card is broken": ("broken", None, "No DNN in stream executor"),
}


@pytest.mark.parametrize("device, answer, said", DEVICES.values(), ids=DEVICES.keys())
def test_tensorflow_says_where_it_computes(tmp_path: Path, device: str, answer: bool | None, said: str) -> None:
    """nvidia-smi shows a card that the wheel's TensorFlow cannot use; only TensorFlow itself knows."""
    python = make_sdk(tmp_path, device=device)

    found, words = machine.computes_on_card(python, dict(os.environ))

    assert found is answer and said in words


def test_a_tensorflow_that_cannot_be_asked(tmp_path: Path) -> None:
    """None, and why: hefkit does not guess."""
    assert machine.computes_on_card(tmp_path / "gone", {})[0] is None
    found, words = machine.computes_on_card(Path(sys.executable), {})
    assert found is None and "tensorflow" in words


CARDS = {
    "used": ("/device:GPU:0", True, "graphics card 1, NVIDIA A10G", ""),
    "not used": ("/device:CPU:0", False, "computes on the processor", "tensorflow[and-cuda]"),
    "broken": ("broken", True, "graphics card 1", "does not say where it computes: RuntimeError: No DNN"),
}


@pytest.mark.parametrize("device, has_card, told, warned", CARDS.values(), ids=CARDS.keys())
def test_a_card_counts_when_tensorflow_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, has_card: bool, told: str, warned: str
) -> None:
    """What is known before the first call of the SDK: the card, what TensorFlow does with it, and the cure."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(NVIDIA_SMI)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    warnings: list[str] = []

    ready = get_ready(make_sdk(tmp_path, device=device), "hailo8", tmp_path, (1, 4), warnings.append)

    assert ready.has_card is has_card and told in ready.device
    about = [w for w in warnings if "TensorFlow" in w]
    assert [warned in w for w in about] == ([True] if warned else [])


def test_without_a_card_tensorflow_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is known, and the question takes seconds."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "99")
    monkeypatch.setattr(machine, "computes_on_card", None)

    assert get_ready(make_sdk(tmp_path), "hailo8", tmp_path, (1, 4), lambda text: None).has_card is False


def test_libraries_reach_the_sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In front of the user's own LD_LIBRARY_PATH."""
    tools = tmp_path / "site-packages/hailo_tools/or-tools/dependencies/install/lib"
    tools.mkdir(parents=True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "99")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/own")
    python = fake_python(tmp_path, place=str(tmp_path / "site-packages" / "hailo_sdk_client"))

    ready = get_ready(python, "hailo8", tmp_path, (1, 4), lambda text: None)

    assert ready.settings["LD_LIBRARY_PATH"] == f"{tools}:/own"
