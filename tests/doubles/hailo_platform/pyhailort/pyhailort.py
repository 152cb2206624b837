"""The Python side of the package: it wraps status exceptions and checks arguments before the extension."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import hailo_platform.pyhailort._pyhailort as _pyhailort
import numpy as np
from hailo_double import control
from hailo_double.network import Network, Refused, read_network
from hailo_double.pipeline import Frame, Job, Pipeline, Status
from hailo_platform.pyhailort._pyhailort import Format, FormatOrder, FormatType, QuantInfo

INVALID_ARGUMENT, TIMEOUT, INVALID_OPERATION, NOT_FOUND = 2, 4, 6, 61
DEVICE_IN_USE, OUT_OF_PHYSICAL_DEVICES, NOT_SUPPORTED, NOT_COMPATIBLE = 73, 74, 79, 93
MAX_BATCH = 63
DTYPES = {"uint8": FormatType.UINT8, "uint16": FormatType.UINT16, "float32": FormatType.FLOAT32}
BYTES = {FormatType.UINT8: 1, FormatType.UINT16: 2, FormatType.FLOAT32: 4}
COMPATIBLE = {"HAILO8": ("hailo8", "hailo8l"), "HAILO8L": ("hailo8l",)}


class HailoSchedulingAlgorithm:
    """The extension's enumeration under another name."""

    NONE = _pyhailort.SchedulingAlgorithm.NONE
    ROUND_ROBIN = _pyhailort.SchedulingAlgorithm.ROUND_ROBIN


class HailoRTException(Exception):
    """The base of the wrapped exceptions."""


class HailoRTTimeout(HailoRTException):
    """4"""


class HailoRTStreamAborted(HailoRTException):
    """63"""


class HailoRTStreamAbortedByUser(HailoRTException):
    """Never raised in 4.23."""


class HailoRTInvalidOperationException(HailoRTException):
    """6"""


class HailoRTInvalidArgumentException(HailoRTException):
    """2"""


class HailoRTNotFoundException(HailoRTException):
    """61"""


class HailoRTInvalidHEFException(HailoRTException):
    """26"""


class HailoRTHEFNotCompatibleWithDevice(HailoRTException):
    """93"""


class HailoRTDriverOperationFailedException(HailoRTException):
    """36"""


class HailoRTFirmwareControlFailedException(HailoRTException):
    """18"""


class HailoRTInvalidFrameException(HailoRTException):
    """25"""


class HailoRTUnsupportedOpcodeException(HailoRTException):
    """48"""


class HailoRTNetworkGroupNotActivatedException(HailoRTException):
    """69"""


class InvalidProtocolVersionException(HailoRTException):
    """15"""


class HailoCommunicationClosedException(HailoRTException):
    """62"""


# status -> class, and a text without the number; the texts are ours
WRAPPED: dict[int, tuple[type[HailoRTException], str]] = {
    2: (HailoRTInvalidArgumentException, "invalid argument"),
    4: (HailoRTTimeout, "a timeout"),
    6: (HailoRTInvalidOperationException, "invalid operation"),
    15: (InvalidProtocolVersionException, "another protocol version"),
    18: (HailoRTFirmwareControlFailedException, "a control failed"),
    25: (HailoRTInvalidFrameException, "an invalid frame"),
    26: (HailoRTInvalidHEFException, "invalid HEF"),
    36: (HailoRTDriverOperationFailedException, "the driver failed"),
    48: (HailoRTUnsupportedOpcodeException, "an unsupported opcode"),
    61: (HailoRTNotFoundException, "not found"),
    62: (HailoCommunicationClosedException, "communication closed"),
    63: (HailoRTStreamAborted, "the stream was aborted"),
    69: (HailoRTNetworkGroupNotActivatedException, "not activated"),
    93: (HailoRTHEFNotCompatibleWithDevice, "not for this device"),
}


class ExceptionWrapper:
    """Turns status exceptions of the block into exceptions with a name; everything else passes."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        if kind is _pyhailort.HailoRTStatusException:
            raise self.create_exception_from_status(int(value.args[0])) from value

    @staticmethod
    def create_exception_from_status(code: int) -> HailoRTException:
        """The class of a status, or the base with the number in its text."""
        if code in WRAPPED:
            kind, text = WRAPPED[code]
            return kind(text)
        return HailoRTException(f"libhailort failed with error: {code} ({_pyhailort.get_status_message(code)})")


def check(stage: str) -> None:
    """Fail as the test has set, the way the extension does."""
    code = control.fault(stage)
    if code is not None:
        raise _pyhailort.status(code)


class HEF:
    """A file, and what can be read from it without a device."""

    def __init__(self, hef_source: str | bytes) -> None:
        if not isinstance(hef_source, str | bytes):
            raise ValueError("HEF can only be created from a file path (str) or a buffer (bytes)")
        with ExceptionWrapper():
            self._network = _open(hef_source)

    def get_output_vstream_infos(self, name: str | None = None) -> list[SimpleNamespace]:
        """Not wrapped in the real one."""
        check("vstream_infos")
        return [SimpleNamespace(name=stream["name"]) for stream in self._network.streams()]


def _open(source: str | bytes) -> Network:
    try:
        return read_network(source)
    except Refused as exc:
        raise _pyhailort.status(exc.args[0]) from None


# --- devices ---------------------------------------------------------------------------------------------------------


class DeviceArchitectureTypes(IntEnum):
    """Prints as its name."""

    HAILO8_A0 = 0
    HAILO8 = 1
    HAILO8L = 2
    HAILO15H = 3
    HAILO15L = 4
    HAILO15M = 5
    HAILO10H = 6

    def __str__(self) -> str:
        return self.name


class Control:
    """Commands to the firmware."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def _ask(self) -> dict[str, Any]:
        if self._device._released:
            control.violation("a device was asked after its release")
        return next(d for d in control.settings.devices if d["id"] == self._device.device_id)

    def identify(self) -> SimpleNamespace:
        """Board, architecture, firmware."""
        with ExceptionWrapper():
            check("identify")
        found, firmware = self._ask(), control.settings.firmware
        return SimpleNamespace(
            board_name="Hailo-8\0",
            device_architecture=DeviceArchitectureTypes[found["arch"]],
            firmware_version="{}.{}.{} (release,app)".format(*firmware),
        )

    def get_chip_temperature(self) -> _pyhailort.TemperatureInfo:
        """Of the two sensors."""
        self._ask()
        with ExceptionWrapper():
            check("temperature")
            if control.settings.temperature is None:
                raise _pyhailort.status(48)
        return _pyhailort.TemperatureInfo(*control.settings.temperature)


class Device:
    """A physical device; scan and constructor are not wrapped in the real one."""

    def __init__(self, device_id: str | None = None) -> None:
        self._released = True
        check("device")
        ids = [d["id"] for d in control.settings.devices]
        if device_id is None and not ids:
            raise HailoRTException("HailoRT device not found in the system")
        self._device_id = ids[0] if device_id is None else device_id
        self._released = False
        self.control = Control(self)

    @classmethod
    def scan(cls) -> list[str]:
        """Every device, busy or not."""
        check("scan")
        return [d["id"] for d in control.settings.devices]

    @property
    def device_id(self) -> str:
        """0001:01:00.0"""
        return self._device_id

    def release(self) -> None:
        """Calling it twice is allowed."""
        if not self._released:
            control.event("device released")
        self._released = True

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *args: Any) -> None:
        self.release()


_in_use: dict[str, int] = {}


class VDevice:
    """Networks are configured on it; no other process can use the chip meanwhile."""

    def __init__(self, params: _pyhailort.VDeviceParams | None = None, *, device_ids: list[str] | None = None) -> None:
        self._ids: list[str] | None = None
        self._creation_pid = os.getpid()
        self._models: weakref.WeakSet[InferModel] = weakref.WeakSet()
        self._configured: weakref.WeakSet[ConfiguredInferModel] = weakref.WeakSet()
        if params is None:
            params = VDevice.create_params()
        if not isinstance(params, _pyhailort.VDeviceParams):
            raise TypeError("create(): incompatible function arguments: params")
        self._scheduled = params.scheduling_algorithm != 0 and device_ids is None
        with ExceptionWrapper():
            check("vdevice")
            self._ids = self._take(device_ids or params.device_ids, params.device_count)
        control.event("vdevice created")

    def _take(self, wanted: list[str], count: int) -> list[str]:
        found = control.settings.devices
        if any(d["arch"] in ("HAILO10H", "HAILO15H", "HAILO15M", "HAILO15L") for d in found):
            raise _pyhailort.status(NOT_SUPPORTED)
        if wanted and any(d.get("busy") or _in_use.get(d["id"]) for d in found if d["id"] in wanted):
            raise _pyhailort.status(DEVICE_IN_USE)
        free = [
            d["id"] for d in found if not d.get("busy") and not _in_use.get(d["id"]) and d["id"] in (wanted or d["id"])
        ]
        if len(free) < count:
            raise _pyhailort.status(OUT_OF_PHYSICAL_DEVICES)
        for device_id in free[:count]:
            _in_use[device_id] = 1
        return free[:count]

    @staticmethod
    def create_params() -> _pyhailort.VDeviceParams:
        """Without a scheduler, in 4.x."""
        return _pyhailort.VDeviceParams()

    def get_physical_devices(self) -> list[Device]:
        """New objects at every call."""
        with ExceptionWrapper():
            check("physical_devices")
        return [Device(device_id) for device_id in self._ids or ()]

    def create_infer_model(self, hef_source: str | bytes, name: str = "") -> InferModel:
        """From a path as text, or a file's bytes."""
        if os.getpid() != self._creation_pid:
            raise HailoRTException("InferModel can be created only from the process VDevice was created in.")
        if not isinstance(hef_source, str | bytes):
            raise TypeError("create_infer_model_from_file(): incompatible function arguments")
        with ExceptionWrapper():
            check("create_infer_model")
            model = InferModel(_open(hef_source), self)
        self._models.add(model)
        return model

    def release(self) -> None:
        """Must come last."""
        ids, self._ids = self._ids, None
        if ids is None:
            return
        if any(model._native is not None for model in self._configured):
            control.violation("the VDevice was released before a configured model")
        if len(self._models) and not control.settings.models_may_linger:
            control.violation("the VDevice was released before an infer model")
        control.event("vdevice released")
        for device_id in ids:
            _in_use.pop(device_id, None)

    def __enter__(self) -> VDevice:
        return self

    def __exit__(self, *args: Any) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


# --- the model -------------------------------------------------------------------------------------------------------


class _Stream:
    """The settings of one stream; `configure` copies them."""

    def __init__(self, table: dict[str, Any], kind: str) -> None:
        self.name: str = table["name"]
        self.kind = kind  # "raw", "host", "chip", "boxes"
        self.native = FormatType.FLOAT32 if kind != "raw" else DTYPES[table.get("dtype", "uint8")]
        self.type = self.native
        self.order = FormatOrder.HAILO_NMS_BY_CLASS if kind in ("host", "chip") else FormatOrder.NHWC
        self.changed = False  # an NMS setter was called
        self.score, self.iou = table.get("score", 0.0), table.get("iou", 0.0)
        if kind in ("host", "chip"):
            self.shape = [table["classes"] * (1 + 5 * table["most"])]
        elif kind == "boxes":
            self.shape = [1, table["anchors"], 4 + table["classes"]]
        else:
            self.shape = list(table["shape"])
        scale = table.get("scale", 1.0)
        # one record in any case; several scales are announced by zeros in it (infer_model.cpp)
        self.quant_infos = [QuantInfo() if isinstance(scale, list) else QuantInfo(table.get("zero_point", 0), scale)]

    @property
    def frame_size(self) -> int:
        """Bytes of one frame in the user's format."""
        return int(np.prod(self.shape)) * BYTES[self.type]


class InferModel:
    """Streams and settings before `configure`."""

    class InferStream:
        """A view of one stream."""

        def __init__(self, stream: _Stream) -> None:
            self._stream = stream

        @property
        def name(self) -> str:
            """net/conv41"""
            return self._stream.name

        @property
        def shape(self) -> list[int]:
            """A list, never a tuple."""
            return list(self._stream.shape)

        @property
        def format(self) -> Format:
            """In the user's buffer."""
            return Format(self._stream.type, self._stream.order)

        @property
        def quant_infos(self) -> list[QuantInfo]:
            """One."""
            return self._stream.quant_infos

        @property
        def is_nms(self) -> bool:
            """Boxes by class."""
            return self._stream.kind in ("host", "chip")

        def set_format_type(self, type: FormatType) -> None:
            """Only before `configure`; later it has no effect."""
            if not isinstance(type, FormatType):
                raise TypeError("set_format_type(): incompatible function arguments")
            self._stream.type = type

        def set_nms_score_threshold(self, threshold: float) -> None:
            """Where there is no NMS on the host, `configure` fails."""
            self._stream.score, self._stream.changed = float(np.float32(threshold)), True

        def set_nms_iou_threshold(self, threshold: float) -> None:
            """The same."""
            self._stream.iou, self._stream.changed = float(np.float32(threshold)), True

    def __init__(self, network: Network, vdevice: VDevice) -> None:
        self._network, self._vdevice = network, vdevice
        self._batch_size = 0
        self._inputs = [_Stream({**network.input, "dtype": "uint8"}, "raw")]
        kind = "raw" if network.nms is None else network.nms["kind"]
        self._outputs = [_Stream(table, kind) for table in network.streams()]

    @property
    def input_names(self) -> list[str]:
        """In the file's order."""
        return [stream.name for stream in self._inputs]

    @property
    def output_names(self) -> list[str]:
        """In the file's order."""
        return [stream.name for stream in self._outputs]

    @property
    def inputs(self) -> list[InferStream]:
        """New views at every call."""
        return [self.InferStream(stream) for stream in self._inputs]

    @property
    def outputs(self) -> list[InferStream]:
        """New views at every call."""
        return [self.InferStream(stream) for stream in self._outputs]

    def input(self, name: str = "") -> InferStream:
        """By name, or the only one."""
        return self._one(self._inputs, name)

    def output(self, name: str = "") -> InferStream:
        """By name, or the only one."""
        return self._one(self._outputs, name)

    def _one(self, streams: list[_Stream], name: str) -> InferStream:
        with ExceptionWrapper():
            if not name and len(streams) != 1:
                raise _pyhailort.status(INVALID_OPERATION)
            found = [stream for stream in streams if stream.name == (name or streams[0].name)]
            if not found:
                raise _pyhailort.status(NOT_FOUND)
        return self.InferStream(found[0])

    def set_batch_size(self, batch_size: int) -> None:
        """0 lets HailoRT choose."""
        if not isinstance(batch_size, int) or not 0 <= batch_size < 1 << 16:
            raise TypeError("set_batch_size(): incompatible function arguments")
        self._batch_size = batch_size

    def configure(self) -> ConfiguredInferModel:
        """Check everything and copy it."""
        with ExceptionWrapper():
            check("configure")
            arch = next(d["arch"] for d in control.settings.devices if d["id"] in (self._vdevice._ids or ()))
            if self._network.arch not in COMPATIBLE[arch]:
                raise _pyhailort.status(NOT_COMPATIBLE)
            if self._network.groups != 1:
                raise _pyhailort.status(INVALID_ARGUMENT)
            if self._batch_size > MAX_BATCH:
                raise _pyhailort.status(INVALID_OPERATION)
            self._check_formats()
            configured = ConfiguredInferModel(self)
        self._vdevice._configured.add(configured)
        return configured

    def _check_formats(self) -> None:
        for stream in self._inputs:
            if stream.type not in (stream.native, FormatType.FLOAT32):
                raise _pyhailort.status(INVALID_ARGUMENT)
        for stream in self._outputs:
            if stream.changed and stream.kind != "host":
                raise _pyhailort.status(INVALID_ARGUMENT)
            if stream.kind != "raw" and stream.type is not FormatType.FLOAT32:
                raise _pyhailort.status(INVALID_ARGUMENT)
            if stream.native is FormatType.UINT16 and stream.type is FormatType.UINT8:
                raise _pyhailort.status(INVALID_ARGUMENT)


class ConfiguredInferModel:
    """A model on the chip."""

    class Bindings:
        """The buffers of one frame."""

        class InferStream:
            """The buffer of one stream."""

            def __init__(self, classes: int) -> None:
                self._buffer: np.ndarray | None = None
                self._classes = classes  # 0 without NMS

            def set_buffer(self, buffer: np.ndarray) -> None:
                """The memory itself is kept; it must be writeable even for an input."""
                if not buffer.flags.c_contiguous:
                    raise HailoRTException("Buffer must be C_CONTIGUOUS")
                if not buffer.flags.writeable:
                    raise ValueError("array is not writeable")
                self._buffer = buffer

            def get_buffer(self, tf_format: bool | None = False) -> Any:
                """With None the array; else an NMS output as views, one for each class."""
                if tf_format is None or not self._classes or self._buffer is None:
                    return self._buffer
                flat, at, found = self._buffer, 0, []
                for _ in range(self._classes):
                    count = int(flat[at])
                    found.append(flat[at + 1 : at + 1 + 5 * count].reshape(count, 5) if count else np.empty([0, 5]))
                    at += 1 + 5 * count
                return found

        def __init__(self, inputs: list[_Stream], outputs: list[_Stream], classes: int) -> None:
            self._inputs = {stream.name: self.InferStream(0) for stream in inputs}
            self._outputs = {stream.name: self.InferStream(classes) for stream in outputs}

        def input(self, name: str = "") -> InferStream:
            """By name, or the only one."""
            return self._one(self._inputs, name)

        def output(self, name: str = "") -> InferStream:
            """By name, or the only one."""
            return self._one(self._outputs, name)

        def _one(self, streams: dict[str, InferStream], name: str) -> InferStream:
            name = name or (next(iter(streams)) if len(streams) == 1 else "")
            if name not in streams:
                with ExceptionWrapper():
                    raise _pyhailort.status(NOT_FOUND)
            return streams[name]

    def __init__(self, model: InferModel) -> None:
        self._infer_model = model
        self._inputs = [_copy(stream) for stream in model._inputs]
        self._outputs = [_copy(stream) for stream in model._outputs]
        self._batch_size = model._batch_size or 1
        self._scheduled = model._vdevice._scheduled
        self._active = self._scheduled
        self._buffer_guards: deque[list[Any]] = deque()
        self._native: Pipeline | None = Pipeline(self._compute, self._queue_size())

    def _queue_size(self) -> int:
        if control.settings.queue_size is not None:
            return control.settings.queue_size
        least = 2 * self._batch_size
        sizes = [stream.frame_size for stream in [*self._inputs, *self._outputs]]
        return min(max(min((32 << 20) // size, max(least, 8)), least) for size in sizes)

    def _compute(self, picture: np.ndarray) -> list[np.ndarray]:
        network, first = self._infer_model._network, self._outputs[0]
        results = network.run(picture.view(np.uint8).reshape(network.input["shape"]), first.score, first.iou)
        return [self._as_asked(r, s, t) for r, s, t in zip(results, self._outputs, network.streams(), strict=True)]

    def _as_asked(self, result: np.ndarray, stream: _Stream, table: dict[str, Any]) -> np.ndarray:
        if stream.kind != "raw" or stream.type is not FormatType.FLOAT32:
            return result
        zero_point, scale = (np.asarray(table[key], np.float32) for key in ("zero_point", "scale"))
        return (result.astype(np.float32) - zero_point) * scale

    def __enter__(self) -> ConfiguredInferModel:
        return self

    def __exit__(self, *args: Any) -> None:
        native, self._native = self._native, None
        if native is not None:
            native.close()
            control.event("configured model left")

    @property
    def _alive(self) -> Pipeline:
        if self._native is None:
            raise AttributeError("'NoneType' object has no attribute of a configured model")
        return self._native

    def activate(self) -> None:
        """Only without the scheduler."""
        with ExceptionWrapper():
            if self._scheduled:
                raise _pyhailort.status(INVALID_OPERATION)
        self._active = True

    def create_bindings(
        self, input_buffers: dict[str, np.ndarray] | None = None, output_buffers: dict[str, np.ndarray] | None = None
    ) -> Bindings:
        """New bindings with these buffers."""
        with ExceptionWrapper():
            check("create_bindings")
        assert self._alive
        nms = self._infer_model._network.nms
        classes = nms["classes"] if nms is not None and nms["kind"] in ("host", "chip") else 0
        bindings = self.Bindings(self._inputs, self._outputs, classes)
        for name, buffer in (input_buffers or {}).items():
            bindings.input(name).set_buffer(buffer)
        for name, buffer in (output_buffers or {}).items():
            bindings.output(name).set_buffer(buffer)
        return bindings

    def wait_for_async_ready(self, timeout_ms: int = 1000, frames_count: int = 1) -> None:
        """With more frames than the queue size it always times out."""
        with ExceptionWrapper():
            check("wait_ready")
            try:
                self._alive.wait_ready(timeout_ms / 1000, frames_count)
            except Status as exc:
                raise _pyhailort.status(exc.args[0]) from None

    def run_async(self, bindings: list[Bindings], callback: Callable[..., None] | None = None) -> AsyncInferJob:
        """One job of several frames; the callback is called with the keyword completion_info."""
        buffers = [[b.input(s.name)._buffer for s in self._inputs] for b in bindings]
        outputs = [[b.output(s.name)._buffer for s in self._outputs] for b in bindings]
        self._buffer_guards.append([buffers, outputs])

        def done(status: int) -> None:
            if callback is not None:
                exception = ExceptionWrapper.create_exception_from_status(status) if status else None
                callback(completion_info=AsyncInferCompletionInfo(exception))
            self._buffer_guards.popleft()

        frames = [Frame(b[0], o) for b, o in zip(buffers, outputs, strict=True)]
        sizes = (self._inputs[0].frame_size, [stream.frame_size for stream in self._outputs])
        with ExceptionWrapper():
            code = control.fault("run_async")
            if code is not None:
                self._alive.shut_down(63)
                raise _pyhailort.status(code)
            if not self._active:
                raise _pyhailort.status(69)
            try:
                return AsyncInferJob(self._alive.start(frames, sizes, done))
            except Status as exc:
                raise _pyhailort.status(exc.args[0]) from None

    def set_scheduler_threshold(self, threshold: int) -> None:
        """At most the batch."""
        with ExceptionWrapper():
            check("set_scheduler_threshold")
            if not self._scheduled:
                raise _pyhailort.status(INVALID_OPERATION)
            if threshold > self._batch_size:
                raise _pyhailort.status(INVALID_ARGUMENT)
        control.event(f"threshold {threshold}")

    def set_scheduler_timeout(self, timeout_ms: int) -> None:
        """How long a batch that is not full waits."""
        with ExceptionWrapper():
            if not self._scheduled:
                raise _pyhailort.status(INVALID_OPERATION)
        control.event(f"timeout {timeout_ms}")

    def get_async_queue_size(self) -> int:
        """Frames that may be in flight."""
        with ExceptionWrapper():
            check("queue_size")
        return self._alive.queue_size

    def shutdown(self) -> None:
        """Abort what is in flight; the model cannot be used any more."""
        self._alive.shut_down(63)


def _copy(stream: _Stream) -> _Stream:
    copy = object.__new__(_Stream)
    copy.__dict__.update(stream.__dict__)
    return copy


class AsyncInferCompletionInfo:
    """The argument of a callback."""

    def __init__(self, exception: HailoRTException | None) -> None:
        self._exception = exception

    @property
    def exception(self) -> HailoRTException | None:
        """None after success."""
        return self._exception


class AsyncInferJob:
    """A job in flight."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def wait(self, timeout_ms: int) -> None:
        """For the job and its callback."""
        control.event("last job waited for")
        with ExceptionWrapper():
            if not self._job.done.wait(timeout_ms / 1000):
                raise _pyhailort.status(TIMEOUT)
