#!/usr/bin/env python3
"""Step 4: the live detector. Camera in, boxes out, for weeks.

    python3 working_hailo_detector.py model.hef csi --web 8080
    python3 working_hailo_detector.py --model model.hef --source usb --show --record flight.mp4
    python3 working_hailo_detector.py model.hef rtsp://camera/stream --jsonl - --mqtt mqtt://broker.local
    python3 working_hailo_detector.py model.emulated.onnx flight.mp4 --loop --web 8080

Keys in the window: q quit, s save the frame, r record. Ends on Ctrl-C, SIGTERM, q, --duration and --max-frames.
"""

from __future__ import annotations

import argparse
import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hefkit import cli
from hefkit.cameras.source import CameraSource, parse_source
from hefkit.detect.flags import (
    ENGINES,
    add_detection_flags,
    add_model_and_source,
    decode_settings,
    describe_engine,
    model_and_source,
)
from hefkit.errors import DataError, UsageError
from hefkit.live.addresses import parse_mqtt_url, parse_topic, parse_web_address
from hefkit.text import counted, log, one_line

if TYPE_CHECKING:  # --help must not wait for these
    from hefkit.cameras.file import FileCamera
    from hefkit.detect.engine import Engine
    from hefkit.live.desk import Desk
    from hefkit.live.grabber import Grabber
    from hefkit.live.state import Controls, LiveStats
    from hefkit.signals import StopSignals

FOLDER = Path("runs", "live")  # of what the keys s and r write, where no flag names a place
TOPIC = "hefkit"
SAVE_MAX, SAVE_EVERY_S = 1000, 1.0
MAX_LINE_BYTES = 1 << 20
RECORD_FPS = 25.0  # of cameras; a recording repeats or leaves out frames to play as time passed


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; every value is checked here, nothing is opened."""
    parser = cli.Parser(__doc__, usage="%(prog)s [--model] MODEL [--source] SOURCE [options]")
    add = parser.add_argument
    add_model_and_source(parser, "csi, usb, a number, /dev/videoN, rtsp://..., http://..., or a video file")
    add_detection_flags(parser)
    add("--loop", action="store_true", help="of a video file: begin again at its end")
    add("--pace", choices=("realtime", "fast"), help="of a video file: as a camera would, or every frame (realtime)")
    add("--show", action="store_true", help="a window; q quit, s save, r record")
    add("--headless", action="store_true", help="no window; implied where there is no display")
    add("--web", type=parse_web_address, metavar="[HOST:]PORT", help="a page; off this machine only with a token")
    add("--record", type=Path, metavar="FILE.mp4", help="annotated video")
    add("--save-dir", type=Path, metavar="DIR", help="annotated pictures of frames with detections")
    add("--save-max", type=cli.whole_number(1), metavar="N", help=f"pictures kept there ({SAVE_MAX})")
    add("--save-every", type=cli.seconds, metavar="S", help=f"least seconds between two of them ({SAVE_EVERY_S:g})")
    add("--jsonl", metavar="FILE|-", help="one flushed JSON line a frame, appended; - is standard output")
    add("--mqtt", type=parse_mqtt_url, metavar="URL", help="mqtt[s]://host[:port]; credentials: environment or file")
    add("--mqtt-topic", type=parse_topic, metavar="T", help=f"the topics' beginning ({TOPIC})")
    add("--max-frames", type=cli.whole_number(1), metavar="N", help="stop after N processed frames")
    add("--duration", type=cli.seconds, metavar="S", help="stop after S seconds")
    args = parser.parse_intermixed_args(argv)
    args.model, args.source = model_and_source(parser, args)
    try:
        args.camera = parse_source(args.source)
    except DataError as exc:  # told after what is wrong with the model
        args.camera = exc
    check_combinations(parser, args)
    return args


def check_combinations(parser: cli.Parser, args: argparse.Namespace) -> None:
    """What cannot go together is told before the camera opens."""
    if args.show and args.headless:
        parser.error("--show and --headless contradict each other")
    live = isinstance(args.camera, CameraSource) and args.camera.live
    if live and (args.loop or args.pace):
        parser.error(f"--loop and --pace are for video files, and {args.camera.name} is none")
    if args.mqtt_topic is not None and args.mqtt is None:
        parser.error("--mqtt-topic needs --mqtt URL")
    if args.save_dir is None and (args.save_max is not None or args.save_every is not None):
        parser.error("--save-max and --save-every need --save-dir DIR")
    if args.record is not None and args.record.suffix.lower() != ".mp4":
        parser.error(f"--record {args.record}: expected a name that ends in .mp4")


def main(argv: Sequence[str] | None = None) -> int:
    """Check, open everything, run until told to stop, say how it went."""
    args = parse_args(argv)
    from hefkit.signals import StopRequested, StopSignals

    cli.set_up_logging(args.quiet)
    try:
        with StopSignals(threading.Event()) as signals, contextlib.suppress(StopRequested):
            result = detect(args, signals)
            if args.json and not signals.exit_code:
                cli.print_json(result)
    except cli.Terminated:  # a moment before StopSignals would have told
        return 0
    return signals.exit_code


def detect(args: argparse.Namespace, signals: StopSignals) -> dict[str, Any]:
    """Open sinks, model and camera, run, close them in turn; returns the summary."""
    from hefkit.detect.engine import EngineOptions
    from hefkit.names import parse_names
    from hefkit.open_model import check_model_file, model_first, open_engine

    given_names = None if args.names is None else parse_names(args.names)
    check_outputs(args)
    check_model_file(args.model)
    options = EngineOptions(given_names, 1, args.conf, args.iou, lambda spec: decode_settings(args, spec))
    with contextlib.ExitStack() as stack:
        with model_first(args.model, options):
            if isinstance(args.camera, DataError):
                raise args.camera
            cli.need("numpy", "cv2")
            from hefkit.live.run import Limits, LiveRun
            from hefkit.live.state import Controls, LiveStats

            controls, stats = Controls(signals.stop), LiveStats(str(args.model), args.camera.name)
            film = None if args.camera.live else open_film(args)
            desk, idle = open_sinks(args, film, controls, stats, stack)
        engine = open_engine(args.model, options)
        stack.callback(lambda: None if run is None or run.hung else run.engine.close())
        run = None
        names = dict(engine.spec.names)
        stats.model(engine.kind, names)
        settings = decode_settings(args, engine.spec)
        log.info("%s", describe_engine(args.model, engine))
        grabber = open_grabber(args, engine, film, controls, stats)
        stack.callback(grabber.close)
        run = LiveRun(
            engine, lambda: open_engine(args.model, options), settings, grabber, desk, controls, stats,
            Limits(args.max_frames, args.duration), names, idle,
        )  # fmt: skip
        signals.listening()
        run.run()
    return report(stats, engine)


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse (exit 2) what cannot be written, before anything is opened."""
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
    """Refuse (exit 2) a file that holds something else than lines of ours: more of them would spoil a model or a film.

    The first line may be cut off, at its end by a full disk and at its beginning by who trimmed the file.
    """
    from hefkit.files import explained

    if not path.is_file():  # a pipe or a device takes whatever comes
        return
    with explained(path), open(path, "rb") as file:
        begins = file.read(MAX_LINE_BYTES)
    if begins.strip() and not begins.startswith(b'{"source"') and b', "latency_ms": ' not in begins:
        raise UsageError(
            f"--jsonl {path}: the file holds something else; expected none, or earlier lines; choose another"
        )


def open_sinks(
    args: argparse.Namespace, film: FileCamera | None, controls: Controls, stats: LiveStats, stack: contextlib.ExitStack
) -> tuple[Desk, Callable[[], None]]:
    """The sinks that were asked for, and what keeps a window alive."""
    from hefkit.live.desk import Desk
    from hefkit.live.filesinks import FrameSaver, JsonlSink, Recorder

    def recorder() -> Recorder:
        """Cameras are recorded as time passed; a file that is read as fast as possible, frame by frame."""
        fps = (film and film.fps) or RECORD_FPS
        return Recorder(args.record or FOLDER / "recording.mp4", None if args.pace == "fast" else fps, fps)

    desk = Desk(controls, args.save_dir or FOLDER, recorder)
    stack.callback(desk.close)
    if args.record is not None:
        desk.add(recorder())
    if args.web is not None:
        from hefkit.web.sink import WebSink

        desk.add(WebSink(args.web, stats, controls))
    if args.jsonl is not None:
        desk.add(JsonlSink(args.jsonl))
    if args.save_dir is not None:
        desk.add(FrameSaver(args.save_dir, args.save_max or SAVE_MAX, args.save_every or SAVE_EVERY_S))
    if args.mqtt is not None:
        from hefkit.mqtt.sink import MqttSink

        desk.add(MqttSink(args.mqtt, args.mqtt_topic or TOPIC, stats, controls))
    return desk, open_window(args, desk)


def open_window(args: argparse.Namespace, desk: Desk) -> Callable[[], None]:
    """A window, if one was asked for and can be shown; returns what must be called now and then."""
    from hefkit.live.window import QUIT, RECORD, SAVE, Window, has_display

    if args.show and not has_display():
        log.warning("--show: there is no display here, so there is no window; --web shows the picture in a browser")
    if not args.show or not has_display():
        return lambda: None
    window = Window({QUIT: desk.quit, SAVE: desk.save, RECORD: desk.toggle_recording})
    desk.add(window)
    return window.poll


def open_film(args: argparse.Namespace) -> FileCamera:
    """A video file; whether it is one is told before a chip is looked for."""
    from hefkit.cameras.file import FileCamera

    return FileCamera(args.camera, loop=args.loop)


def open_grabber(
    args: argparse.Namespace, engine: Engine, film: FileCamera | None, controls: Controls, stats: LiveStats
) -> Grabber:
    """The camera's thread; waits for the first picture."""
    from hefkit.cameras.open import open_camera
    from hefkit.live.grabber import Grabber

    if film is None:
        return Grabber(lambda: open_camera(args.camera, engine.spec.input), controls, stats)
    fast = args.pace == "fast"
    return Grabber(lambda: film, controls, stats, ends=True, fps=None if fast else film.fps, lossless=fast)


def report(stats: LiveStats, engine: Engine) -> dict[str, Any]:
    """How it went, for people on stderr; returns the same for programs."""
    result = stats.summary()
    log.info(
        "%s, %d dropped, %.1f per second; camera reopened %d times",
        counted(result["frames"], "frame"), result["dropped"], result["frames_per_second"], result["reconnects"],
    )  # fmt: skip
    stages = ", ".join(
        f"{stage} {ms['p50']:.1f}/{ms['p95']:.1f}" for stage, ms in result["stage_ms"].items() if ms["p50"] is not None
    )
    if stages:
        log.info("milliseconds, median/95 %%: %s", stages)
    for name, count in result["by_class"].items():
        log.info("%7d  %s", count, one_line(name, 60))
    if engine.kind == "emulated":
        log.info("%s", ENGINES["emulated"])
    return result


if __name__ == "__main__":
    cli.run(main)
