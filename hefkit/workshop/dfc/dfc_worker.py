"""The half of the compiler driver that runs in the SDK's own Python; hefkit starts it and never imports it.

    python dfc_worker.py COMMANDS EVENTS        two file descriptors, JSON lines in both directions

The SDK prints to stdout and stderr, so the protocol has pipes of its own. Runs on Python 3.8 to 3.12; imports the
standard library, numpy, the SDK, and the TensorFlow that comes with the SDK.

Each call of the SDK is written as in published, working code; docs/sdk-assumptions.md lists them.
"""

from __future__ import annotations

import os
import sys

# the SDK must not import the files beside this one (log.py, process.py ...) in place of its own modules
_HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:] = [path for path in sys.path if os.path.realpath(path or os.getcwd()) != _HERE]

import contextlib  # noqa: E402
import faulthandler  # noqa: E402
import functools  # noqa: E402
import inspect  # noqa: E402
import json  # noqa: E402
import queue  # noqa: E402
import signal  # noqa: E402
import threading  # noqa: E402
import traceback  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, Callable  # noqa: E402

import numpy as np  # noqa: E402

MAX_MESSAGE = 40000  # characters of the end of an exception's text
MARK = "--- traceback, written by hefkit's worker ---\n"  # from here on the log has our words, not the SDK's


def main() -> None:
    """Import the SDK, then run commands until the driver closes the pipe."""
    faulthandler.enable()
    commands, events = (int(argument) for argument in sys.argv[1:3])
    for fd in (commands, events):
        os.set_inheritable(fd, False)  # a program that the SDK starts must not keep the pipe open
    worker = Worker(os.fdopen(events, "w", encoding="utf-8"))
    orders = listen(commands, worker)
    worker.run("start", worker.start, {})
    while True:
        order = orders.get()
        if order is None:
            return
        do = order.pop("do")
        worker.run(do, getattr(worker, "do_" + do), order)


def listen(fd: int, worker: Worker) -> queue.Queue[dict[str, Any] | None]:
    """Read commands in a thread: if the driver dies during a call, this process and all that it has started end too."""
    orders: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def read() -> None:
        with os.fdopen(fd, encoding="utf-8") as pipe:
            for line in pipe:
                orders.put(json.loads(line))
        orders.put(None)
        if worker.busy and os.getpgrp() == os.getpid():  # only a group that is ours
            os.killpg(os.getpid(), signal.SIGKILL)

    threading.Thread(target=read, daemon=True).start()
    return orders


class Worker:
    """One `ClientRunner` and the commands on it; each returns a dict that is sent as JSON."""

    def __init__(self, events: Any) -> None:
        self.busy = True
        self._events = events
        self._runner: Any = None

    def run(self, do: str, method: Callable[..., dict[str, Any]], arguments: dict[str, Any]) -> None:
        """Run a command; send its result, or the exception that it raised, as one event."""
        self.busy = True
        try:
            event = {"done": do, "result": method(**arguments)}
        except BaseException as exc:  # noqa: BLE001 - the SDK's exceptions have no common base, some call sys.exit()
            event = {"failed": do, "error": described(exc)}
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.write(MARK + traceback.format_exc())
        self.busy = False
        for stream in (sys.stdout, sys.stderr):  # the log must be complete before the event is read
            with contextlib.suppress(Exception):  # the SDK may have replaced or closed it
                stream.flush()
        self._events.write(json.dumps(event) + "\n")
        self._events.flush()

    def start(self) -> dict[str, Any]:
        """Import the SDK: seconds to tens of seconds."""
        import hailo_sdk_client

        try:
            from hailo_sdk_client.exposed_definitions import SUPPORTED_HW_ARCHS as archs
        except ImportError:
            archs = []
        version = getattr(hailo_sdk_client, "__version__", None)
        return {
            "sdk": None if version is None else str(version),
            "python": ".".join(map(str, sys.version_info[:3])),
            "numpy": np.__version__,
            "archs": [str(getattr(arch, "value", arch)) for arch in archs],
        }

    def do_signatures(self, calls: list[str]) -> dict[str, Any]:
        """The installed SDK's signatures of `calls`; null where a name is missing."""
        import hailo_sdk_client

        found: dict[str, str | None] = {}
        for call in calls:
            try:
                found[call] = signature_of(functools.reduce(getattr, call.split("."), hailo_sdk_client))
            except AttributeError:
                found[call] = None
        return {"signatures": found}

    def do_parse(self, onnx: str, net_name: str, end_nodes: list[str], hw_arch: str, har: str) -> dict[str, Any]:
        """Translate an ONNX, and save the parsed graph as a HAR."""
        from hailo_sdk_client import ClientRunner

        self._runner = ClientRunner(hw_arch=hw_arch)
        self._runner.translate_onnx_model(onnx, net_name, end_node_names=end_nodes)
        self._save(har)
        return described_graph(self._runner)

    def do_open(self, har: str, hw_arch: str) -> dict[str, Any]:
        """Load a HAR for the chip that it was made for; `hw_arch` is used only if the HAR names no chip."""
        from hailo_sdk_client import ClientRunner

        self._runner = ClientRunner(har=har)
        arch = word(getattr(self._runner, "hw_arch", None))
        if arch is None:
            self._runner = ClientRunner(hw_arch=hw_arch, har=har)
        script = getattr(self._runner, "model_script", None)
        return {
            **described_graph(self._runner),
            "hw_arch": arch,
            "state": word(getattr(self._runner, "state", None)),
            "script": script if isinstance(script, str) else None,
        }

    def do_script(self, path: str) -> dict[str, Any]:
        """Load the model script, replacing an earlier one."""
        self._runner.load_model_script(Path(path))
        return {}

    def do_full_precision(self, images: str, count: int, form: str) -> dict[str, Any]:
        """Apply the script's changes in floating point; `ran` is false where this SDK has no such call."""
        if not hasattr(self._runner, "optimize_full_precision"):
            return {"ran": False}
        self._runner.optimize_full_precision(calib_data=calibration(images, count, form))
        return {"ran": True}

    def do_quantize(self, images: str, count: int, form: str, har: str) -> dict[str, Any]:
        """Quantise with the first `count` images, and save the result as a HAR."""
        self._runner.optimize(calibration(images, count, form))
        self._save(har)
        return {}

    def do_infer(self, context: str, images: str, outputs: str) -> dict[str, Any]:
        """Emulate images with the SDK; each output becomes a file `OUTPUTS<k>.npy`, (N, H, W, C) float32."""
        from hailo_sdk_client import InferenceContext

        data = np.load(images, mmap_mode="r").astype(np.float32)  # 0..255, as the chip's input
        with self._runner.infer_context(getattr(InferenceContext, context)) as opened:
            try:
                found = self._runner.infer(context=opened, dataset=data, batch_size=1)
            except TypeError as exc:
                if "unexpected keyword" not in str(exc):
                    raise
                found = self._runner.infer(opened, data)
        if isinstance(found, dict):
            found = list(found.values())
        elif not isinstance(found, (list, tuple)):  # a network with one output
            found = [found]
        shapes = []
        for k, tensor in enumerate(found):
            array = np.asarray(tensor, dtype=np.float32)
            np.save(f"{outputs}{k}.npy", array)
            shapes.append(list(array.shape))
        return {"shapes": shapes}

    def do_compile(self, hef: str) -> dict[str, Any]:
        """Compile, and write the bytes of the HEF to a file."""
        data = self._runner.compile()
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"compile() returned {type(data).__name__}, expected the bytes of a HEF")
        with open(hef, "wb") as file:
            file.write(data)
        return {"bytes": len(data)}

    def _save(self, har: str) -> None:
        """A HAR gets its name only when it is complete."""
        partial = har[: -len(".har")] + ".partial.har"
        self._runner.save_har(partial)
        os.replace(partial, har)


def calibration(path: str, count: int, form: str) -> Any:
    """The first images of a uint8 (N, H, W, 3) file, values 0..255, in a form that `optimize` is known to accept.

    float32   one array; most published code passes this
    dataset   a function that returns a tf.data.Dataset of (image, {}): one image in memory at a time
    uint8     one array as it is in the file; DFC 3.2x accepted it
    """
    images = np.load(path, mmap_mode="r")[:count]
    if form == "float32":
        return images.astype(np.float32)
    if form == "uint8":
        return np.array(images)
    import tensorflow as tf

    def samples() -> Any:
        for image in images:
            yield image.astype(np.float32), {}

    kind = tf.TensorSpec(shape=images.shape[1:], dtype=tf.float32)
    return lambda: tf.data.Dataset.from_generator(samples, output_signature=(kind, {}))


def described_graph(runner: Any) -> dict[str, Any]:
    """From the parsed graph: the inputs, the outputs in order with their producers, and the names of all layers."""
    model = runner.get_hn_model()
    layers = runner.get_hn_dict()["layers"]
    outputs = []
    for layer in model.get_output_layers():
        name, producer = str(layer.name), str(layer.inputs[0])
        outputs.append(
            {
                "name": name,
                "producer": producer,
                "shape": shape_of(layer, entry(layers, name)),
                "original_names": texts(entry(layers, producer).get("original_names")),
            }
        )
    inputs = [
        {"name": str(layer.name), "shape": shape_of(layer, entry(layers, str(layer.name)))}
        for layer in model.get_input_layers()
    ]
    names = {
        str(name): {"type": str(layer.get("type")), "original_names": texts(layer.get("original_names"))}
        for name, layer in layers.items()
    }
    return {"inputs": inputs, "outputs": outputs, "layers": names}


def entry(layers: dict[str, Any], name: str) -> dict[str, Any]:
    """A layer's record, by its full name (net/conv1); if there is none, by the name without the network's."""
    found = layers.get(name)
    if found is None:
        bare = name.rsplit("/", 1)[-1]
        found = next((value for key, value in layers.items() if str(key).rsplit("/", 1)[-1] == bare), {})
    return dict(found)


def shape_of(layer: Any, record: dict[str, Any]) -> list[int] | None:
    """[-1, H, W, C] of a layer's output."""
    shape = getattr(layer, "output_shape", None)
    if shape is None:
        shapes = getattr(layer, "output_shapes", None) or record.get("output_shapes") or record.get("input_shapes")
        shape = shapes[0] if shapes else None
    return None if shape is None else [int(side) for side in shape]


def texts(values: Any) -> list[str]:
    """One string, a sequence or None -> a list of strings."""
    return [values] if isinstance(values, str) else [str(value) for value in values or []]


def word(value: Any) -> str | None:
    """A string or an enum as lower-case text; an enum of numbers by its name."""
    inner = getattr(value, "value", value)
    text = inner if isinstance(inner, str) else getattr(value, "name", value)
    return None if value is None else str(text).lower()


def signature_of(item: Any) -> str:
    """`(a, b=None)`; for a class its constructor; for anything else its value."""
    try:
        return str(inspect.signature(item))
    except (TypeError, ValueError):
        return repr(item)[:500]


def described(exc: BaseException) -> dict[str, str]:
    """An exception for the driver, as texts: the driver cannot import the SDK's classes."""
    text = str(exc)[-MAX_MESSAGE:]  # the reason is at the end of a traceback
    return {"kind": type(exc).__name__, "message": text}


if __name__ == "__main__":
    main()
