"""The live detector as a process with its page and a broker: flags, start, end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest

from tests.conftest import ROOT, Finished, start_script
from tests.helpers.mosquitto import Broker, Listener, find_mosquitto, free_port
from tests.helpers.tiny_onnx import drawn
from tests.helpers.toy_emulation import write_emulation
from tests.helpers.viewers import Viewer, ask
from tests.helpers.waiting import wait_for

pytestmark = [
    pytest.mark.xdist_group("clock"),
    pytest.mark.slow,
]  # it looks at the clock: one process for all such files


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, Path]:
    """A model that sees a drone in every picture, and a film."""
    film = cv2.VideoWriter(str(tmp_path / "flight.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (96, 64))
    for i in range(25):
        film.write(drawn((64, 96), i))
    film.release()
    return write_emulation(tmp_path), tmp_path / "flight.mp4"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A real one."""
    program = find_mosquitto()
    if program is None:
        pytest.skip("no MQTT broker here: apt-get install mosquitto")
    started = Broker(program, tmp_path)
    yield started
    started.stop()


def test_page_and_broker_until_sigterm(inputs: tuple[Path, Path], broker: Broker, tmp_path: Path) -> None:
    """Every processed frame is published; the page shows the same numbers; SIGTERM ends it with viewers connected."""
    listener, port = Listener(broker.port), free_port()
    command = [str(ROOT / "working_hailo_detector.py"), *map(str, inputs), "--loop", "--json"]
    command += ["--web", str(port), "--mqtt", f"mqtt://127.0.0.1:{broker.port}", "--mqtt-topic", "garden/cam"]
    with open(os.devnull) as nothing, open(tmp_path / "out", "w") as out, open(tmp_path / "err", "w") as err:
        files = [nothing.fileno(), out.fileno(), err.fileno()]
        process = start_script(command, tmp_path, dict(os.environ), files, fresh=False)
    try:
        wait_for(lambda: answers(port), 60)
        viewer = Viewer(port)
        for _ in range(10):
            assert viewer.frame().shape == (64, 96, 3)
        stats = json.loads(ask(port, "/stats").body)
        listener.wait_on("garden/cam/counts/drone", "1")
        os.kill(process.pid, signal.SIGTERM)
        process.wait(20)
    finally:
        if process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    listener.wait_on("garden/cam/availability", "offline")
    lines = [json.loads(line) for line in listener.on("garden/cam/detections")]
    listener.close()
    viewer.close()

    assert process.returncode == 0, (tmp_path / "err").read_text()
    assert stats["engine"] == "emulated" and stats["in_last_frame"] == {"drone": 1} and stats["web"]["viewers"] == 1
    assert [line["frame"] for line in lines] == sorted({line["frame"] for line in lines})
    assert {line["engine"] for line in lines} == {"emulated"}
    # the first few can be gone before the broker has answered for the first time
    frames = json.loads((tmp_path / "out").read_text().splitlines()[-1])["frames"]
    assert frames - 5 <= len(lines) <= frames


def answers(port: int) -> bool:
    """Whether the page is there and has a picture."""
    try:
        return ask(port, "/snapshot.jpg").status == 200
    except OSError:
        return False


def test_a_port_in_use_is_an_error_at_the_start(inputs: tuple[Path, Path], run_here: Callable[..., Finished]) -> None:
    """In one line, with exit code 2, before a camera that is not there could be."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_here("working_hailo_detector.py", inputs[0], "/dev/video99", "--web", port)

    assert done.code == 2
    assert done.errors == [
        f"error: cannot serve on 127.0.0.1:{port}: another program listens there; expected a free port; choose another"
    ]


def test_the_token_is_printed_once(inputs: tuple[Path, Path], run_here: Callable[..., Finished]) -> None:
    """On standard error, with --quiet too, and nowhere else; a given token is not printed."""
    arguments = ("working_hailo_detector.py", *inputs, "--web", f"0.0.0.0:{free_port()}", "--max-frames", 3, "--quiet")
    made = run_here(*arguments, "--json")
    given = run_here(*arguments, "--json", HEFKIT_WEB_TOKEN="a-token-of-the-tests")

    assert (made.code, given.code) == (0, 0)
    [token] = re.findall(r"token=([\w-]{32})\n", made.err)
    assert (made.err + made.out).count(token) == 1
    assert "a-token-of" not in given.err + given.out and "?token=" not in given.err


@pytest.mark.parametrize(
    "arguments, words",
    [
        pytest.param(["--web", "0"], "expected PORT or HOST:PORT", id="no port"),
        pytest.param(["--web", "0.0.0.0:8080:"], "expected PORT or HOST:PORT", id="no address"),
        pytest.param(["--mqtt", "mqtt://ann:s3cret@broker"], "HEFKIT_MQTT_PASSWORD", id="a password"),
        pytest.param(["--mqtt", "broker"], "expected mqtt://HOST", id="no URL"),
        pytest.param(["--mqtt", "mqtt://broker", "--mqtt-topic", "a/#"], "topic to publish below", id="a wildcard"),
    ],
)
def test_mistakes_in_flags(arguments: list[str], words: str, run_here: Callable[..., Finished]) -> None:
    """One line, exit code 2, no secrets; though neither the model nor the camera exists."""
    done = run_here("working_hailo_detector.py", "none.hef", "csi", *arguments)

    assert (done.code, len(done.errors)) == (2, 1)
    assert words in done.errors[0]
    assert "s3cret" not in done.err + done.out and "ann" not in done.err + done.out


@pytest.mark.parametrize(
    "environment, words",
    [
        pytest.param({"HEFKIT_WEB_TOKEN": "short"}, "at least 16", id="a short token"),
        pytest.param({"HEFKIT_WEB_TOKEN_FILE": "/nowhere"}, "HEFKIT_WEB_TOKEN_FILE names: No such file", id="no file"),
        pytest.param({"HEFKIT_MQTT_PASSWORD": "s3cret"}, "HEFKIT_MQTT_USERNAME is not", id="a password without a user"),
    ],
)
def test_mistakes_in_the_environment(
    environment: dict[str, str], words: str, inputs: tuple[Path, Path], run_here: Callable[..., Finished]
) -> None:
    """The same."""
    flags = ("--web", free_port(), "--mqtt", "mqtt://127.0.0.1:1")
    done = run_here("working_hailo_detector.py", *inputs, *flags, **{**os.environ, **environment})

    assert (done.code, len(done.errors)) == (2, 1)
    assert words in done.errors[0] and "s3cret" not in done.err
