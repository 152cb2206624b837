#!/usr/bin/env python3
"""Step 4: the live detector, for cameras and video files.

    python3 working_hailo_detector.py model.hef csi --web 8080
    python3 working_hailo_detector.py --model model.hef --source usb --show --record flight.mp4
    python3 working_hailo_detector.py model.hef rtsp://camera/stream --jsonl - --mqtt mqtt://broker.local
    python3 working_hailo_detector.py model.emulated.onnx flight.mp4 --loop --web 8080

Keys in the window: q quit, s save the frame, r record. Ends on Ctrl-C, SIGTERM, q, --duration and --max-frames.
"""

from __future__ import annotations

if __name__ == "__main__":
    from hefkit.signals import hold_signals

    hold_signals()  # until cli.run handles them

import argparse
import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hefkit import cli
from hefkit.cameras.source import PASSWORD, USERNAME, CameraSource, parse_source, with_login
from hefkit.detect.flags import (
    add_detection_flags,
    add_model_and_source,
    decode_settings,
    describe_engine,
    model_and_source,
)
from hefkit.errors import DataError, UsageError
from hefkit.live.addresses import parse_mqtt_url, parse_topic, parse_web_address, secret
from hefkit.text import counted, log, one_line

if TYPE_CHECKING:  # --help must not wait for these
    from hefkit.cameras.file import FileCamera
    from hefkit.detect.engine import Engine
    from hefkit.live.desk import Desk
    from hefkit.live.grabber import Grabber
    from hefkit.live.state import Controls, LiveStats
    from hefkit.signals import StopSignals

FOLDER = Path("runs", "live")  # where the keys s and r write if no flag names a place
TOPIC = "hefkit"
SAVE_MAX, SAVE_EVERY_S = 1000, 1.0  # pictures, seconds
MAX_LINE_BYTES = 1 << 20
RECORD_FPS = 25.0  # of a camera's recording, which repeats or leaves out frames to play in real time


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; every value is checked here, nothing is opened."""
    parser = cli.Parser(__doc__, usage="%(prog)s [--model] MODEL [--source] SOURCE [options]")
    add = parser.add_argument
    add_model_and_source(parser, "csi, usb, a number, /dev/videoN, rtsp://..., http://..., or a video file")
    add_detection_flags(parser)
    add("--loop", action="store_true", help="start a video file again at its end")
    add("--pace", choices=("realtime", "fast"), help="play a video file like a camera, or read every frame (realtime)")
    add("--show", action="store_true", help="show a window; q quit, s save, r record")
    add("--headless", action="store_true", help="no window; the default without --show")
    add("--web", type=parse_web_address, metavar="[HOST:]PORT", help="serve a web page; other machines need a token")
    add(
        "--web-token-file", type=Path, metavar="FILE", help="keep the token in FILE, which is made if it does not exist"
    )
    add("--record", type=Path, metavar="FILE.mp4", help="write an annotated video")
    add("--save-dir", type=Path, metavar="DIR", help="save annotated pictures of frames with detections")
    add("--save-max", type=cli.whole_number(1), metavar="N", help=f"pictures to keep in --save-dir ({SAVE_MAX})")
    add("--save-every", type=cli.seconds, metavar="S", help=f"minimum seconds between two pictures ({SAVE_EVERY_S:g})")
    add("--jsonl", metavar="FILE|-", help="append one flushed JSON line a frame; - is standard output")
    add("--mqtt", type=parse_mqtt_url, metavar="URL", help="mqtt[s]://host[:port]; credentials: environment or file")
    add("--mqtt-topic", type=parse_topic, metavar="T", help=f"beginning of the topics ({TOPIC})")
    add("--max-frames", type=cli.whole_number(1), metavar="N", help="stop after N processed frames")
    add("--duration", type=cli.seconds, metavar="S", help="stop after S seconds")
    args = parser.parse_intermixed_args(argv)
    args.model, args.source = model_and_source(parser, args)
    try:
        args.camera = parse_source(args.source)
    except DataError as exc:  # raised later: an error in the model comes first
        args.camera = exc
    check_combinations(parser, args)
    return args


def check_combinations(parser: cli.Parser, args: argparse.Namespace) -> None:
    """Refuse flags that contradict each other, before anything is opened."""
    if args.show and args.headless:
        parser.error("--show and --headless contradict each other")
    live = isinstance(args.camera, CameraSource) and args.camera.live
    if live and (args.loop or args.pace):
        parser.error(f"--loop and --pace are for video files, and {args.camera.name} is a camera")
    if args.mqtt_topic is not None and args.mqtt is None:
        parser.error("--mqtt-topic needs --mqtt URL")
    if args.web_token_file is not None and args.web is None:
        parser.error("--web-token-file needs --web [HOST:]PORT")
    if args.save_dir is None and (args.save_max is not None or args.save_every is not None):
        parser.error("--save-max and --save-every need --save-dir DIR")
    if args.record is not None and args.record.suffix.lower() != ".mp4":
        parser.error(f"--record {args.record}: expected a name that ends in .mp4")


def main(argv: Sequence[str] | None = None) -> int:
    """Check the flags, open everything, run until a stop, print the summary."""
    args = parse_args(argv)
    from hefkit.signals import StopRequested, StopSignals

    cli.set_up_logging(args.quiet)
    with StopSignals(threading.Event()) as signals, contextlib.suppress(StopRequested):
        result = detect(args, signals)
        if args.json and not signals.exit_code:
            cli.print_json(result)
    return signals.exit_code


def detect(args: argparse.Namespace, signals: StopSignals) -> dict[str, Any]:
    """Open sinks, model and camera, run, close them in reverse order; returns the summary."""
    from hefkit.detect.engine import EngineOptions
    from hefkit.names import parse_names
    from hefkit.open_model import check_model_file, model_first, open_engine

    given_names = None if args.names is None else parse_names(args.names)
    check_outputs(args)
    if isinstance(args.camera, CameraSource):
        args.camera = with_login(args.camera, secret(USERNAME), secret(PASSWORD))
    args.model = check_model_file(args.model)
    options = EngineOptions(given_names, 1, args.conf, args.iou, lambda spec: decode_settings(args, spec))
    with contextlib.ExitStack() as stack:
        with model_first(args.model, options):
            if isinstance(args.camera, DataError):
                raise args.camera
            cli.need("numpy", "cv2")
            from hefkit.live.run import Limits, LiveRun
            from hefkit.live.state import Controls, LiveStats

            controls, stats = Controls(signals.stop), LiveStats(str(args.model), args.camera.name)
            video = None if args.camera.live else open_video(args)
            desk, idle = open_sinks(args, video, controls, stats, stack)
        engine = open_engine(args.model, options)
        stack.callback(lambda: None if run is None or run.hung else run.engine.close())
        run = None
        names = dict(engine.spec.names)
        stats.model(engine.kind, names)
        settings = decode_settings(args, engine.spec)
        log.info("%s", describe_engine(args.model, engine))
        grabber = open_grabber(args, engine, video, controls, stats)
        stack.callback(grabber.close)
        run = LiveRun(
            engine, lambda: open_engine(args.model, options), settings, grabber, desk, controls, stats,
            Limits(args.max_frames, args.duration), names, idle,
        )  # fmt: skip
        signals.listening()
        run.run()
    return log_summary(stats, engine)


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse (exit 2) outputs that cannot be written, before anything is opened."""
    from hefkit.files import check_appendable, check_file, check_writable

    for folder in (args.save_dir, FOLDER if args.show else None):
        if folder is not None:
            check_writable(folder)
    if args.record is not None:
        check_file(args.record)
    if args.jsonl not in (None, "-"):
        check_appendable(Path(args.jsonl))
        check_lines(Path(args.jsonl))


def check_lines(path: Path) -> None:
    """Refuse (exit 2) a file that holds anything but our lines: appended lines would spoil a model or a video.

    The first line may be incomplete: at its end after a full disk, at its beginning after the file was trimmed.
    """
    from hefkit.files import explained

    if not path.is_file():  # a pipe or a device
        return
    with explained(path), open(path, "rb") as file:
        begins = file.read(MAX_LINE_BYTES)
    if begins.strip() and not begins.startswith(b'{"source"') and b', "latency_ms": ' not in begins:
        raise UsageError(
            f"--jsonl {path}: the file holds other data; expected a new file, or one with earlier lines; choose another"
        )


def open_sinks(
    args: argparse.Namespace,
    video: FileCamera | None,
    controls: Controls,
    stats: LiveStats,
    stack: contextlib.ExitStack,
) -> tuple[Desk, Callable[[], None]]:
    """The sinks that the flags ask for, and the call that keeps a window responsive."""
    from hefkit.live.desk import Desk
    from hefkit.live.filesinks import FrameSaver, JsonlSink, Recorder

    def recorder() -> Recorder:
        """Plays in real time; with `--pace fast` it holds every frame once."""
        fps = (video and video.fps) or RECORD_FPS
        return Recorder(args.record or FOLDER / "recording.mp4", None if args.pace == "fast" else fps, fps)

    desk = Desk(controls, args.save_dir or FOLDER, recorder)
    stack.callback(desk.close)
    poll = open_window(args, desk)  # first: OpenCV's first window hangs if PyAV was imported before
    if args.record is not None:
        desk.add(recorder())
    if args.web is not None:
        from hefkit.web.sink import WebSink
        from hefkit.web.token_file import token_in

        token = None if args.web_token_file is None else token_in(args.web_token_file)
        desk.add(WebSink(args.web, stats, controls, token))
    if args.jsonl is not None:
        desk.add(JsonlSink(args.jsonl))
    if args.save_dir is not None:
        desk.add(FrameSaver(args.save_dir, args.save_max or SAVE_MAX, args.save_every or SAVE_EVERY_S))
    if args.mqtt is not None:
        from hefkit.mqtt.sink import MqttSink

        desk.add(MqttSink(args.mqtt, args.mqtt_topic or TOPIC, stats, controls))
    return desk, poll


def open_window(args: argparse.Namespace, desk: Desk) -> Callable[[], None]:
    """Open a window if `--show` asks for one and there is a display; returns what must be called regularly."""
    from hefkit.live.window import QUIT, RECORD, SAVE, Window, has_display

    if args.show and not has_display():
        log.warning("--show: there is no display here, so there is no window; --web shows the picture in a browser")
    if not args.show or not has_display():
        return lambda: None
    window = Window({QUIT: desk.quit, SAVE: desk.save, RECORD: desk.toggle_recording})
    desk.add(window)
    return window.poll


def open_video(args: argparse.Namespace) -> FileCamera:
    """Open a video file, before the chip is opened: a wrong file must not need a chip."""
    from hefkit.cameras.file import FileCamera

    return FileCamera(args.camera, loop=args.loop)


def open_grabber(
    args: argparse.Namespace, engine: Engine, video: FileCamera | None, controls: Controls, stats: LiveStats
) -> Grabber:
    """Start the thread that reads the camera or the video; waits for the first picture."""
    from hefkit.cameras.open import open_camera
    from hefkit.live.grabber import Grabber

    if video is None:
        return Grabber(lambda: open_camera(args.camera, engine.spec.input), controls, stats)
    fast = args.pace == "fast"
    return Grabber(lambda: video, controls, stats, ends=True, fps=None if fast else video.fps, lossless=fast)


def log_summary(stats: LiveStats, engine: Engine) -> dict[str, Any]:
    """Log the summary of the run and return it."""
    result = stats.summary()
    log.info(
        "%s, %d dropped, %.1f per second; camera reopened %d times",
        counted(result["frames"], "frame"), result["dropped"], result["frames_per_second"], result["reconnects"],
    )  # fmt: skip
    stages = ", ".join(
        f"{stage} {ms['p50']:.1f}/{ms['p95']:.1f}" for stage, ms in result["stage_ms"].items() if ms["p50"] is not None
    )
    if stages:
        log.info("milliseconds, median/95th percentile: %s", stages)
    if result["by_class"]:
        log.info("boxes in all frames, so an object counts again in every frame:")
    for name, count in result["by_class"].items():
        log.info("%7d  %s", count, one_line(name, 60))
    return result


if __name__ == "__main__":
    cli.run(main, terminated=0)
