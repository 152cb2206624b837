"""The double of HailoRT is as strict as the real one: what 4.23 refuses is refused, what it punishes is noted.

Each rule has the place where it was read in reference to HailoRT 4.23: pyhailort.py (P), infer_model_api.cpp (B),
infer_model.cpp (M), pyhailort.cpp (E).
"""

from __future__ import annotations

import importlib
import inspect
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.chip_hef import Recipe, write_hef
from tests.helpers.heads import make_head, make_spec


@pytest.fixture
def hailo(chip: Any) -> Any:
    """The package, as `import hailo_platform` gives it; pytest holds the fixtures' objects longer than allowed."""
    chip.settings.models_may_linger = True
    return importlib.import_module("hailo_platform")


@pytest.fixture
def inner(hailo: Any) -> Any:
    """Its inner module, where most classes live."""
    return importlib.import_module("hailo_platform.pyhailort.pyhailort")


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A HEF with raw heads, an input of 64x64."""
    write_hef(tmp_path / "m.hef", make_spec(make_head()), None)
    return str(tmp_path / "m.hef")


@pytest.fixture
def vdevice(hailo: Any) -> Iterator[Any]:
    """With the scheduler."""
    params = hailo.VDevice.create_params()
    params.scheduling_algorithm = hailo.HailoSchedulingAlgorithm.ROUND_ROBIN
    with hailo.VDevice(params) as device:
        yield device


@pytest.fixture
def configured(vdevice: Any, path: str) -> Iterator[Any]:
    """A configured model, left in order."""
    model = vdevice.create_infer_model(path).configure()
    yield model
    model.__exit__(None, None, None)
    del model


def bindings(configured: Any, mark: int = 1) -> Any:
    """Good buffers for one frame."""
    outputs = {s.name: np.zeros(s.shape, np.uint8) for s in configured._outputs}
    picture = np.full((64, 64, 3), mark, np.uint8)
    return configured.create_bindings(input_buffers={"net/input": picture}, output_buffers=outputs)


def broken(chip: Any) -> list[str]:
    """The rules that were broken; forgotten with the call, so that the fixture is content."""
    found = list(chip.violations)
    chip.violations.clear()
    return found


# --- opening ---------------------------------------------------------------------------------------------------------


def test_paths_are_texts(hailo: Any, vdevice: Any, path: str) -> None:
    """P: HEF.__init__, VDevice.create_infer_model."""
    with pytest.raises(ValueError):
        hailo.HEF(Path(path))
    with pytest.raises(TypeError):
        vdevice.create_infer_model(Path(path))
    assert vdevice.create_infer_model(Path(path).read_bytes()).input_names == ["net/input"]


def test_the_scheduler_is_off_unless_asked_for(hailo: Any) -> None:
    """E: VDeviceParams.default; reading gives a number, setting wants the enumeration."""
    params = hailo.VDevice.create_params()

    assert params.scheduling_algorithm == 0
    with pytest.raises(TypeError):
        params.scheduling_algorithm = 1
    params.scheduling_algorithm = hailo.HailoSchedulingAlgorithm.ROUND_ROBIN
    assert params.scheduling_algorithm == 1


def test_device_ids_of_the_constructor_turn_it_off(hailo: Any) -> None:
    """B, vdevice_api.hpp: create_from_ids."""
    params = hailo.VDevice.create_params()
    params.scheduling_algorithm = hailo.HailoSchedulingAlgorithm.ROUND_ROBIN
    with hailo.VDevice(params, device_ids=["0001:01:00.0"]) as device:
        assert not device._scheduled


def test_two_vdevices(hailo: Any, inner: Any, vdevice: Any) -> None:
    """vdevice.cpp: create_devices; by number the device is in use, else there is none left."""
    with pytest.raises(hailo.HailoRTException, match=r"error: 74 \(HAILO_OUT_OF_PHYSICAL_DEVICES\)"):
        hailo.VDevice()
    with pytest.raises(hailo.HailoRTException, match="error: 73"):
        hailo.VDevice(device_ids=["0001:01:00.0"])


def test_what_is_not_wrapped(chip: Any, hailo: Any, inner: Any) -> None:
    """P: Device.scan and Device() raise the extension's own exception, with a bare number."""
    chip.settings.faults = {"scan": 4, "device": 73}
    for call in (hailo.Device.scan, hailo.Device):
        with pytest.raises(hailo._pyhailort.HailoRTStatusException) as caught:
            call()
        assert not isinstance(caught.value, hailo.HailoRTException)
        assert str(caught.value.args[0]).isdigit()


def test_settings_after_configure_are_in_vain(hailo: Any, vdevice: Any, path: str) -> None:
    """M: the configured model has taken its formats."""
    model = vdevice.create_infer_model(path)
    with model.configure() as configured:
        model.output("net/conv1").set_format_type(hailo.FormatType.FLOAT32)
        assert configured._outputs[0].frame_size == 8 * 8 * 64


@pytest.mark.parametrize(
    ("recipe", "name", "wanted"),
    [
        pytest.param(Recipe(nms="host"), "net/nms", "UINT8", id="NMS is float32"),
        pytest.param(Recipe(multiply={0: [2] * 64}), "net/conv1", "UINT8", id="16 bits do not shrink"),
    ],
)
def test_formats_are_checked_by_configure(
    hailo: Any, inner: Any, vdevice: Any, tmp_path: Path, recipe: Recipe, name: str, wanted: str
) -> None:
    """async_pipeline_builder.cpp, transform.cpp."""
    write_hef(tmp_path / "m.hef", make_spec(make_head()), None, recipe)
    model = vdevice.create_infer_model(str(tmp_path / "m.hef"))
    model.output(name).set_format_type(hailo.FormatType[wanted])

    with pytest.raises(inner.HailoRTInvalidArgumentException):
        model.configure()


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(nms="chip"), Recipe(nms="boxes")], ids=["raw", "on chip", "boxes"])
def test_nms_setters_fail_in_configure(inner: Any, vdevice: Any, tmp_path: Path, recipe: Recipe) -> None:
    """M: without an NMS operation on the host."""
    write_hef(tmp_path / "m.hef", make_spec(make_head()), None, recipe)
    model = vdevice.create_infer_model(str(tmp_path / "m.hef"))
    model.outputs[0].set_nms_score_threshold(0.5)

    with pytest.raises(inner.HailoRTInvalidArgumentException):
        model.configure()


def test_scales_a_feature_are_announced_by_zeros(vdevice: Any, tmp_path: Path) -> None:
    """M: get_quant_infos gives one record for every file."""
    write_hef(tmp_path / "m.hef", make_spec(make_head()), None, Recipe(multiply={0: [2] * 64}))

    [info] = vdevice.create_infer_model(str(tmp_path / "m.hef")).output("net/conv1").quant_infos

    assert (info.qp_scale, info.qp_zp) == (0, 0)


def test_a_batch_too_large(inner: Any, vdevice: Any, path: str) -> None:
    """63 frames are the limit; the number itself has 16 bits."""
    model = vdevice.create_infer_model(path)
    model.set_batch_size(64)
    with pytest.raises(inner.HailoRTInvalidOperationException):
        model.configure()
    with pytest.raises(TypeError):
        model.set_batch_size(1 << 16)


def test_activation_is_an_error_under_the_scheduler(inner: Any, configured: Any) -> None:
    """core_op.cpp."""
    with pytest.raises(inner.HailoRTInvalidOperationException):
        configured.activate()


def test_without_the_scheduler_it_is_needed(hailo: Any, inner: Any, path: str) -> None:
    """Else the network is not active."""
    with hailo.VDevice() as device, device.create_infer_model(path).configure() as configured:
        with pytest.raises(inner.HailoRTNetworkGroupNotActivatedException):
            configured.run_async([bindings(configured)])
        with pytest.raises(inner.HailoRTInvalidOperationException):
            configured.set_scheduler_threshold(1)


# --- buffers ---------------------------------------------------------------------------------------------------------


def test_buffers_are_contiguous_and_writeable(hailo: Any, configured: Any) -> None:
    """P: _validate_c_contiguous; B: mutable_data. Even an input."""
    stream = configured.create_bindings().input("net/input")
    with pytest.raises(hailo.HailoRTException, match="C_CONTIGUOUS"):
        stream.set_buffer(np.zeros((3, 64, 64), np.uint8).transpose(1, 2, 0))
    with pytest.raises(ValueError, match="not writeable"):
        stream.set_buffer(np.frombuffer(bytes(64 * 64 * 3), np.uint8))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        pytest.param(lambda b: b.input("net/input").set_buffer(np.zeros(5, np.uint8)), "InvalidOperation", id="bytes"),
        pytest.param(lambda b: setattr(b.output("net/conv2"), "_buffer", None), "NotFound", id="no buffer"),
    ],
)
def test_a_wrong_buffer_kills_the_model(inner: Any, configured: Any, change: Callable[[Any], None], error: str) -> None:
    """M: validate_bindings, and ConfiguredInferModel::run_async shuts down on any failure."""
    wrong = bindings(configured)
    change(wrong)
    with pytest.raises(getattr(inner, f"HailoRT{error}Exception")):
        configured.run_async([wrong])
    with pytest.raises(inner.HailoRTStreamAborted):
        configured.run_async([bindings(configured)])


def test_only_bytes_are_compared(configured: Any) -> None:
    """Another dtype of the same size passes: that is why hefkit looks itself."""
    odd = bindings(configured)
    odd.input("net/input").set_buffer(np.zeros((32, 32, 3), np.float32))
    configured.run_async([odd]).wait(1000)


def test_nms_buffers_are_views(vdevice: Any, tmp_path: Path) -> None:
    """P: output_raw_buffer_to_nms_format_single_frame; an empty class is float64."""
    write_hef(tmp_path / "m.hef", make_spec(make_head()), None, Recipe(nms="host"))
    with vdevice.create_infer_model(str(tmp_path / "m.hef")).configure() as configured:
        flat = np.zeros(3 * 501, np.float32)
        flat[:6] = [1, 0.1, 0.2, 0.3, 0.4, 0.9]
        frame = configured.create_bindings(output_buffers={"net/nms": flat})

        first, second, third = frame.output().get_buffer()

        assert np.shares_memory(first, flat) and first.shape == (1, 5)
        assert second.shape == third.shape == (0, 5) and second.dtype == np.float64
        assert frame.output().get_buffer(None) is flat


# --- running ---------------------------------------------------------------------------------------------------------


def test_the_callback_s_keyword_and_thread(configured: Any) -> None:
    """P: run_async; B: a worker thread of the binding."""
    seen: list[Any] = []

    def done(completion_info: Any) -> None:
        seen.extend([completion_info.exception, threading.current_thread()])

    assert list(inspect.signature(configured.run_async).parameters) == ["bindings", "callback"]
    configured.run_async([bindings(configured)], callback=done).wait(1000)

    assert seen[0] is None and seen[1] is not threading.current_thread()


def test_a_callback_that_raises_is_noted(chip: Any, inner: Any, configured: Any) -> None:
    """B: the exception crosses a std::thread; the job is never done."""
    job = configured.run_async([bindings(configured)], callback=lambda info: None)  # not the keyword

    with pytest.raises(inner.HailoRTTimeout):
        job.wait(100)
    [rule] = broken(chip)
    assert rule.startswith("a callback raised TypeError")


def test_ready_for_more_than_the_queue_times_out(chip: Any, inner: Any, configured: Any) -> None:
    """P: the note at wait_for_async_ready."""
    configured.wait_for_async_ready(timeout_ms=10, frames_count=8)
    with pytest.raises(inner.HailoRTTimeout):
        configured.wait_for_async_ready(timeout_ms=10, frames_count=9)


def test_a_full_queue_kills_the_model(chip: Any, hailo: Any, inner: Any, configured: Any) -> None:
    """M: 82, then everything in flight is aborted, and the model cannot run any more."""
    chip.settings.service_ms = 20
    ended: list[Any] = []
    for _ in range(8):
        configured.run_async([bindings(configured)], callback=lambda completion_info: ended.append(completion_info))

    with pytest.raises(hailo.HailoRTException, match="error: 82"):
        configured.run_async([bindings(configured)])

    assert [type(info.exception).__name__ for info in ended] == ["HailoRTStreamAborted"] * 8
    with pytest.raises(inner.HailoRTStreamAborted):
        configured.run_async([bindings(configured)])


def test_one_callback_for_a_list(configured: Any) -> None:
    """A list is one job."""
    frames, calls = [bindings(configured, mark) for mark in (3, 4)], []

    configured.run_async(frames, callback=lambda completion_info: calls.append(completion_info)).wait(1000)

    assert len(calls) == 1
    assert [int(frame.output("net/conv6").get_buffer()[0, 0, 0]) for frame in frames] == [3, 4]


def test_an_input_in_flight_must_not_be_touched(chip: Any, configured: Any) -> None:
    """The DMA reads it when the chip gets to it: so does the double, and it notes the change."""
    chip.settings.service_ms = 30
    frame = bindings(configured, 1)
    job = configured.run_async([frame])
    frame.input("net/input").get_buffer()[:] = 9
    job.wait(1000)

    assert broken(chip) == ["an input was changed while its frame was in flight"]


def test_a_buffer_in_two_frames_at_once(chip: Any, configured: Any) -> None:
    """Whose result would it be?"""
    chip.settings.service_ms = 30
    frame = bindings(configured)
    configured.run_async([frame])
    configured.run_async([frame]).wait(1000)

    assert set(broken(chip)) == {"an output buffer is in two frames at once"}


# --- the end ---------------------------------------------------------------------------------------------------------


def test_the_order_of_release(chip: Any, vdevice: Any, path: str) -> None:
    """P: the notes at create_infer_model; the configured model goes first, the VDevice last."""
    chip.settings.models_may_linger = False
    model = vdevice.create_infer_model(path)
    configured = model.configure()
    vdevice.release()

    assert broken(chip) == [
        "the VDevice was released before a configured model",
        "the VDevice was released before an infer model",
    ]
    configured.__exit__(None, None, None)


def test_leaving_with_frames_in_flight_is_noted(chip: Any, vdevice: Any, path: str) -> None:
    """The last job is to be waited for."""
    chip.settings.service_ms = 50
    with vdevice.create_infer_model(path).configure() as configured:
        configured.run_async([bindings(configured)])
        time.sleep(0.01)

    assert broken(chip) == ["the configured model was left with 1 frames in flight"]


def test_users_cannot_import_it() -> None:
    """It lies in no folder that a script of hefkit searches."""
    assert importlib.util.find_spec("hailo_platform") is None
