"""`make deploy`: what arrives on the Pi, twice, over a broken connection, and over files of the user.

The Pi is a folder here. A stand-in for ssh runs the commands in it, and where sshd is installed, a real one.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.helpers.chip_hef import write_hef
from tests.helpers.heads import make_head, make_spec
from tests.helpers.waiting import wait_for

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
pytestmark = needs_make


@dataclass(frozen=True)
class Pi:
    """A home on the Pi, the command that reaches it, and a model to send."""

    home: Path
    ssh: str
    model: Path

    def deploy(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `make deploy`."""
        given = {"PI": "user@127.0.0.1", "MODEL": str(self.model), "SSH": self.ssh, **variables}
        return subprocess.run(
            ["make", "--no-print-directory", "deploy", *(f"{key}={value}" for key, value in given.items())],
            cwd=ROOT, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    @property
    def files(self) -> dict[str, bytes]:
        """Everything in the folder hefkit but what Python caches."""
        folder = self.home / "hefkit"
        paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def shell_on_the_pi(tmp_path: Path) -> tuple[Path, str]:
    """The home, and the beginning of each command there: its `python3` is the Python of the tests."""
    home, programs = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    programs.mkdir()
    (programs / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python3").chmod(0o755)
    return home, f"cd '{home}' && HOME='{home}' PATH='{programs}':$PATH"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """best.hef and best.json."""
    path = tmp_path / "models" / "best.hef"
    path.parent.mkdir()
    write_hef(path, make_spec(make_head((64, 64)), (64, 64)), None, None, beside=True)
    return path


@pytest.fixture
def pi(tmp_path: Path, model: Path) -> Pi:
    """Reached by a stand-in for ssh, which gives its last argument to a shell, as sshd does."""
    home, begin = shell_on_the_pi(tmp_path)
    stand_in = tmp_path / "stand-in"
    stand_in.write_text(f'#!/bin/sh\nfor last; do :; done\n{begin} exec sh -c "$last"\n')
    stand_in.chmod(0o755)
    return Pi(home, str(stand_in), model)


@pytest.fixture
def real_pi(tmp_path: Path, model: Path) -> Iterator[Pi]:
    """Reached by ssh through an sshd on loopback, with keys of its own."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("sshd is not installed: sudo apt install openssh-server")
    home, begin = shell_on_the_pi(tmp_path)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    forced = tmp_path / "forced.sh"
    forced.write_text(f'{begin} exec sh -c "$SSH_ORIGINAL_COMMAND"\n')
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path / 'host'}\nStrictModes no\nUsePAM no\nPidFile none\n"
        f"AuthorizedKeysFile {tmp_path / 'user.pub'}\nPermitRootLogin yes\nForceCommand sh {forced}\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    daemon = subprocess.Popen([SSHD, "-D", "-e", "-f", tmp_path / "sshd_config"], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: listens(port))
        known = f"-o StrictHostKeyChecking=no -o UserKnownHostsFile={tmp_path / 'known'} -o LogLevel=ERROR"
        yield Pi(home, f"ssh -F none -p {port} -i {tmp_path / 'user'} -o BatchMode=yes {known}", model)
    finally:
        daemon.terminate()
        daemon.wait(10)


def listens(port: int) -> bool:
    """Whether a connection to the port on loopback is accepted."""
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def arrived(pi: Pi) -> set[str]:
    """What must be in the folder: the scripts, the package without the workshop, the model, the unit."""
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "hefkit").rglob("*")
        if path.is_file() and not {"__pycache__", "workshop"} & set(path.parts)
    }
    scripts = {"hailo_inference.py", "working_hailo_detector.py", "validate_hef.py"}
    return package | scripts | {"best.hef", "best.json", "hefkit.service"}


def deployed_to_a_new(pi: Pi, user: str) -> Path:
    """The folder on a new Pi, with everything in it."""
    first = pi.deploy(PI=f"{user}@127.0.0.1")
    folder = pi.home / "hefkit"
    assert first.returncode == 0, first.stderr
    assert set(pi.files) == arrived(pi) and pi.files["best.hef"] == pi.model.read_bytes()
    assert f"new: {folder}/hefkit\n" in first.stdout and "python3-picamera2" in first.stdout
    # there is no chip on this machine, and the self-check says so
    assert "--  library" in first.stdout and "the Pi still lacks" in first.stdout.splitlines()[-1]
    unit = pi.files["hefkit.service"].decode()
    assert f"WorkingDirectory={folder}\n" in unit and "working_hailo_detector.py best.hef csi" in unit
    return folder


def test_twice_is_once(pi: Pi) -> None:
    """All files arrive; a second run removes what is gone, keeps what is the user's, and a third changes nothing."""
    folder = deployed_to_a_new(pi, "user")
    helped = subprocess.run(
        [sys.executable, "hailo_inference.py", "best.hef", "gone.jpg"], cwd=folder, capture_output=True, text=True
    )
    assert helped.returncode == 3 and "gone.jpg does not exist" in helped.stderr

    (folder / "hefkit" / "gone.py").write_text("print('a module of an older version')\n")
    (folder / "photo.jpg").write_bytes(b"mine")
    (folder / "hefkit.service").write_text("# mine\n")
    second = pi.deploy()
    assert second.returncode == 0 and f"new: {folder}/hefkit\n" in second.stdout
    assert set(pi.files) == arrived(pi) | {"photo.jpg"} and pi.files["hefkit.service"] == b"# mine\n"
    assert f"kept: {folder}/hefkit.service, which differs" in second.stdout

    third = pi.deploy()
    assert third.returncode == 0 and f"nothing changed in {folder}" in third.stdout and "new:" not in third.stdout


@pytest.mark.slow
def test_over_a_real_sshd(real_pi: Pi) -> None:
    """All files arrive through ssh and sshd, and a second run changes nothing."""
    import getpass

    user = getpass.getuser()
    folder = deployed_to_a_new(real_pi, user)

    assert f"nothing changed in {folder}" in real_pi.deploy(PI=f"{user}@127.0.0.1", MODEL="").stdout


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_connection_that_breaks(pi: Pi, tmp_path: Path, share: float) -> None:
    """The old files stay, whole; the next run needs no help."""
    assert pi.deploy(MODEL="").returncode == 0
    (pi.home / "hefkit" / "hefkit" / "text.py").write_text("# old\n")
    before = pi.files
    size = sum(len(content) + 1024 for content in before.values())  # a tar has a header for each file
    breaking = tmp_path / "breaking"
    breaking.write_text(f'#!/bin/sh\nhead -c {int(share * size)} | {pi.ssh} "$@"\n')
    breaking.chmod(0o755)

    broken = pi.deploy(MODEL="", SSH=str(breaking))
    assert broken.returncode == 2 and "was not updated" in broken.stderr  # make's own exit code
    assert {name: content for name, content in pi.files.items() if not name.startswith(".arriving/")} == before

    assert pi.deploy(MODEL="").returncode == 0
    assert set(pi.files) == arrived(pi) - {"best.hef", "best.json"}
    assert pi.files["hefkit/text.py"] == (ROOT / "hefkit" / "text.py").read_bytes()


@pytest.mark.parametrize(
    ("make_folder", "words"),
    [
        pytest.param(lambda folder: (folder / ".git").mkdir(), "is a git checkout, which would lose files", id="git"),
        pytest.param(lambda folder: (folder / "hefkit").mkdir(), "is not the package hefkit", id="foreign"),
    ],
)
def test_folders_of_the_user_stay(pi: Pi, make_folder: Callable[[Path], None], words: str) -> None:
    """Refused, with nothing left behind."""
    (pi.home / "hefkit").mkdir()
    make_folder(pi.home / "hefkit")

    refused = pi.deploy()
    assert refused.returncode == 2 and words in refused.stderr and pi.files == {}


def test_another_folder(pi: Pi) -> None:
    """FOLDER is where all goes, below the home; the folder of the user stays."""
    (pi.home / "hefkit" / ".git").mkdir(parents=True)

    assert pi.deploy(FOLDER="apps/hefkit2").returncode == 0
    assert (pi.home / "apps" / "hefkit2" / "best.json").exists() and pi.files == {}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        pytest.param({"PI": ""}, "expected user@host", id="no host"),
        pytest.param({"PI": "-oProxyCommand=x"}, "expected user@host", id="option"),
        pytest.param({"PI": "a;b"}, "expected user@host", id="shell"),
        pytest.param({"FOLDER": "../x"}, "expected a folder below the home", id="folder above"),
        pytest.param({"FOLDER": "a'b"}, "expected a folder below the home", id="quote"),
        pytest.param({"MODEL": "gone.hef"}, "the model gone.hef does not exist", id="no model"),
        pytest.param({"MODEL": "README.md"}, "is not a .hef", id="no hef"),
    ],
)
def test_wrong_variables(pi: Pi, variables: dict[str, str], words: str) -> None:
    """One line each, before anything is sent."""
    refused = pi.deploy(**variables)
    assert refused.returncode == 2 and words in refused.stderr and not (pi.home / "hefkit").exists()
