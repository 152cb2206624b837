"""The chip's engine, in this process, on the strict double: order of steps, many batches in flight, every failure.

The HEFs here compute nothing: every code is the first byte of the picture, so a result shows its picture.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hefkit.detect.engine import EngineOptions
from hefkit.errors import DeviceError, HefkitError, ModelError
from hefkit.hailo import ring
from hefkit.hailo.engine import HailoEngine
from hefkit.hailo.runtime import Chip, load_platform
from hefkit.open_model import open_engine
from tests.helpers.chip_hef import Recipe, write_hef
from tests.helpers.heads import make_head, make_spec

SIZE = (64, 96)
Open = Callable[..., HailoEngine]


@pytest.fixture
def open_hef(chip: Any, tmp_path: Path) -> Open:
    """`open_hef(batch_size=8, recipe=Recipe(...))`: an engine, with its spec beside the file."""

    def make(recipe: Recipe | None = None, **options: Any) -> HailoEngine:
        spec = make_spec(make_head(SIZE), SIZE)
        write_hef(tmp_path / "m.hef", spec, None, recipe, beside=recipe is None or recipe.nms is None)
        engine = open_engine(tmp_path / "m.hef", EngineOptions(**options))
        assert isinstance(engine, HailoEngine)
        return engine

    return make


def pictures(*marks: int) -> np.ndarray:
    """Pictures that the toy HEF answers with these codes."""
    batch = np.zeros((len(marks), *SIZE, 3), np.uint8)
    batch[:, 0, 0, 0] = marks
    return batch


def marks(results: list[list[np.ndarray]]) -> list[int]:
    """Which picture each result belongs to; all its tensors must agree."""
    for tensors in results:
        assert len({int(code) for tensor in tensors for code in np.unique(tensor)}) == 1
    return [int(tensors[0].flat[0]) for tensors in results]


# --- without failures ------------------------------------------------------------------------------------------------


def test_opened_and_closed_in_order(chip: Any, open_hef: Open) -> None:
    """Chip, model, last job, model, chip; twice closed is once closed."""
    with open_hef() as engine:
        assert marks(engine.infer(pictures(7))) == [7]
    engine.close()

    assert chip.events == [
        "vdevice created",
        "last job waited for",
        "configured model left",
        "device released",
        "vdevice released",
    ]


def test_tensors_are_those_of_the_spec(open_hef: Open) -> None:
    """Raw codes, in the spec's order, not in the file's."""
    with open_hef(Recipe(order=(5, 4, 3, 2, 1, 0), multiply={2: [2] * 64})) as engine:
        [tensors] = engine.infer(pictures(9))

        heads = engine.spec.head.outputs
        assert [(t.shape, str(t.dtype)) for t in tensors] == [(o.shape, o.dtype) for o in heads]
        assert [o.dtype for o in heads] == ["uint8", "uint8", "uint16", "uint8", "uint8", "uint8"]


@pytest.mark.parametrize(
    ("queue_size", "batch_size", "slots"),
    [
        pytest.param(8, 1, 10, id="as Debian's package"),
        pytest.param(27, 1, 10, id="a longer queue adds only latency"),
        pytest.param(2, 1, 4, id="the shortest queue"),
        pytest.param(16, 8, 4, id="two batches"),
        pytest.param(126, 63, 4, id="the largest batch"),
    ],
)
def test_number_of_slots(chip: Any, open_hef: Open, queue_size: int, batch_size: int, slots: int) -> None:
    """What is in flight fits HailoRT's queue; two more slots are filled and decoded meanwhile."""
    chip.reset(queue_size=queue_size)

    with open_hef(batch_size=batch_size) as engine:
        assert (engine.queue_size, len(engine.slots)) == (queue_size, slots)
        assert all(slot.inputs.shape == (batch_size, *SIZE, 3) for slot in engine.slots)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_infer_uses_slots_in_turn(open_hef: Open, batch_size: int) -> None:
    """More pictures than fit at once; the results are copies, and in order."""
    wanted = [random.Random(1).randrange(256) for _ in range(41)]

    with open_hef(batch_size=batch_size) as engine:
        first = engine.infer(pictures(*wanted))
        engine.infer(pictures(*[0] * 41))

    assert marks(first) == wanted


@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("service_ms", [0, 2])
def test_two_threads_keep_the_chip_full(chip: Any, open_hef: Open, batch_size: int, service_ms: float) -> None:
    """One submits, one collects, partial batches among them; every result is its own batch's, in order."""
    chip.reset(service_ms=service_ms)
    rng = random.Random(batch_size)
    batches = [[rng.randrange(256) for _ in range(rng.randint(1, batch_size))] for _ in range(60)]
    with open_hef(batch_size=batch_size) as engine:
        free = list(engine.slots)
        room, in_flight = threading.Semaphore(len(free)), []
        found: list[list[int]] = []

        def collect() -> None:
            for _ in batches:
                while not in_flight:
                    time.sleep(0.0005)
                slot = in_flight.pop(0)
                found.append(marks(engine.result(slot)))
                free.append(slot)
                room.release()

        thread = threading.Thread(target=collect)
        thread.start()
        for batch in batches:
            room.acquire()
            slot = free.pop(0)
            slot.inputs[: len(batch)] = pictures(*batch)
            engine.submit(slot, len(batch))
            in_flight.append(slot)
        thread.join(30)

    assert found == batches


def test_more_submitted_than_fits_waits(chip: Any, open_hef: Open) -> None:
    """Ten slots, a queue of two: the third submit waits for room, and nothing is lost."""
    chip.reset(queue_size=2, service_ms=5)

    with open_hef() as engine:
        for mark, slot in enumerate(engine.slots):
            slot.inputs[:1] = pictures(mark)
            engine.submit(slot, 1)
        assert [marks(engine.result(slot)) for slot in engine.slots] == [[0], [1], [2], [3]]


@pytest.mark.parametrize(
    ("contexts", "batch_size", "expected"),
    [
        pytest.param(1, 8, [], id="fits the chip"),
        pytest.param(3, 1, [], id="live"),
        pytest.param(3, 8, ["threshold 8", "timeout 100"], id="several contexts, batch"),
    ],
)
def test_scheduler_waits_for_full_batches_where_it_pays(
    chip: Any, open_hef: Open, contexts: int, batch_size: int, expected: list[str]
) -> None:
    """Contexts are loaded over PCIe again and again, so a full batch is worth waiting for; a rest must still go."""
    with open_hef(Recipe(contexts=contexts), batch_size=batch_size):
        pass

    assert [e for e in chip.events if e.startswith(("threshold", "timeout"))] == expected


def test_thresholds_go_to_hailort_s_nms(chip: Any, open_hef: Open, caplog: pytest.LogCaptureFixture) -> None:
    """Before `configure`; a line says where they differ from the file's own."""
    from hailo_platform.pyhailort import pyhailort

    seen = []
    original = pyhailort.InferModel.configure
    pyhailort.InferModel.configure = lambda self: (
        seen.append((self._outputs[0].score, self._outputs[0].iou)) or original(self)
    )

    with caplog.at_level(logging.INFO), open_hef(Recipe(nms="host"), conf=0.125, iou=0.5) as engine:
        [[flat]] = engine.infer(pictures(0))

    assert seen == [(0.125, 0.5)]
    assert flat.shape == (3 * (1 + 5 * 100),) and flat.dtype == np.float32
    assert "its NMS was compiled for scores from 0.2; set to 0.125 by --conf" in caplog.text


def test_facts_and_temperature(chip: Any, open_hef: Open) -> None:
    """For the benchmark and the live detector; what the chip does not say is None."""
    with open_hef() as engine:
        assert (engine.facts.arch, engine.facts.firmware, engine.facts.library) == ("hailo8", "4.23.0", "4.23.0")
        assert engine.temperature_c() == 46.5
        chip.settings.temperature = None
        assert engine.temperature_c() is None
        chip.settings.faults["temperature"] = 18
        assert engine.temperature_c() is None
    assert engine.temperature_c() is None


@pytest.mark.parametrize(
    ("stage", "status"),
    [("physical_devices", 36), ("device", 73), ("identify", 4), ("identify", 18)],  # `device` is not wrapped
)
def test_a_chip_that_does_not_say_what_it_is(
    chip: Any, open_hef: Open, stage: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """No picture needs it: a warning, and HailoRT decides whether the file fits."""
    chip.reset(faults={stage: status})

    with open_hef() as engine:
        assert marks(engine.infer(pictures(6))) == [6]
        assert engine.facts.arch is None and engine.facts.library == "4.23.0"

    assert f"(status {status}, " in caplog.text and "hefkit tries to run the model anyway" in caplog.text
    chip.reset(faults={stage: status}, devices=[{"id": "0001:01:00.0", "arch": "HAILO8L"}])
    with pytest.raises(DeviceError, match="the HEF is for another chip"):
        open_hef()


def test_an_8l_file_on_an_8_is_reported(open_hef: Open, caplog: pytest.LogCaptureFixture) -> None:
    """It runs, at the speed of an 8L."""
    with caplog.at_level(logging.INFO), open_hef(Recipe(arch="hailo8l")) as engine:
        assert marks(engine.infer(pictures(3))) == [3]
    assert "on this Hailo-8 it runs only as fast as on a Hailo-8L" in caplog.text


# --- misuse of ours --------------------------------------------------------------------------------------------------


def test_wrong_calls_are_bugs(open_hef: Open) -> None:
    """Told before HailoRT sees them: it would shut the model down."""
    with open_hef(batch_size=2) as engine:
        slot = engine.slots[0]
        for count in (0, 3):
            with pytest.raises(ValueError, match="expected 1 to 2 pictures"):
                engine.submit(slot, count)
        with pytest.raises(ValueError, match="not submitted"):
            engine.result(slot)
        engine.submit(slot, 1)
        with pytest.raises(ValueError, match="in flight already"):
            engine.submit(slot, 1)
        engine.result(slot)
        with pytest.raises(ValueError, match=r"expected \(N, 64, 96, 3\) uint8"):
            engine.infer(np.zeros((1, 96, 64, 3), np.uint8))
        assert marks(engine.infer(pictures(5))) == [5]


def test_closed_is_closed(open_hef: Open) -> None:
    """A later call raises one sentence."""
    engine = open_hef()
    engine.close()

    with pytest.raises(DeviceError, match="the engine is closed"):
        engine.submit(engine.slots[0], 1)


# --- failures --------------------------------------------------------------------------------------------------------

# where it fails, and with what: every row of the status table is met at least once
OPENING = {
    "vdevice": (13, 16, 36, 62, 64, 73, 74, 75, 76, 77, 78, 79, 85, 86, 87, 88),
    "scan": (),
    "create_infer_model": (13, 26, 91, 92, 3),
    "configure": (2, 6, 8, 71, 81, 93, 18, 4),
    "queue_size": (8,),
    "create_bindings": (61,),
}
BROKEN_FILE = (26, 91, 92)


@pytest.mark.parametrize(("stage", "status"), [(s, c) for s, codes in OPENING.items() for c in codes])
def test_status_at_every_step_of_opening(chip: Any, open_hef: Open, stage: str, status: int) -> None:
    """One sentence with number, cause and cure; what was opened is released; then it can be opened again."""
    chip.reset(faults={stage: status})

    with pytest.raises(ModelError if status in BROKEN_FILE else DeviceError, match=rf"\(status {status}\b") as caught:
        open_hef()

    assert "\n" not in str(caught.value) and "; " in str(caught.value)
    opened = chip.events.count("vdevice created")
    assert chip.events.count("vdevice released") == opened
    chip.reset()
    with open_hef() as engine:
        assert marks(engine.infer(pictures(1))) == [1]


RUNNING = {
    "job": (4, 25, 36, 62, 63, 87),
    "run_async": (6, 61, 69, 82),
    "wait_ready": (36, 63),
}


@pytest.mark.parametrize("flood", [None, 63], ids=["same status", "aborts after it"])
@pytest.mark.parametrize(("stage", "status"), [(s, c) for s, codes in RUNNING.items() for c in codes])
def test_status_in_the_middle(
    chip: Any, open_hef: Open, stage: str, status: int, flood: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before is delivered; from then on every call raises the first failure, not the aborts that follow."""
    if status == 63 and stage in ("job", "wait_ready"):  # nothing but aborts: every call would wait for a cause
        monkeypatch.setattr(ring, "CAUSE_S", 0.05)
    chip.reset(faults={f"{stage}+3": status}, flood=flood, service_ms=1)
    delivered: list[int] = []
    raised: list[BaseException] = []

    with open_hef() as engine:
        submitted = []
        for slot in engine.slots:
            try:
                engine.submit(slot, 1)
                submitted.append(slot)
            except DeviceError as exc:
                raised.append(exc)
                break
        for slot in submitted:
            try:
                delivered += marks(engine.result(slot))
            except DeviceError as exc:
                raised.append(exc)
        with pytest.raises(DeviceError, match=rf"\(status {status}\b"):
            engine.infer(pictures(1))

    assert raised and all(exc is raised[0] for exc in raised)
    assert len(delivered) <= 3
    assert chip.events[-1] == "vdevice released"


def test_the_collector_waits_for_the_cause(chip: Any, open_hef: Open) -> None:
    """A start that fails shuts the model down first: the other thread meets the abort before the cause is known."""
    chip.reset(faults={"run_async+2": 82}, service_ms=30)
    raised: list[BaseException] = []

    with open_hef() as engine:
        engine.submit(engine.slots[0], 1)
        engine.submit(engine.slots[1], 1)

        def collect() -> None:
            try:
                for slot in engine.slots[:2]:
                    engine.result(slot)
            except HefkitError as exc:
                raised.append(exc)

        thread = threading.Thread(target=collect)
        thread.start()
        with pytest.raises(DeviceError, match="status 82") as cause:
            engine.submit(engine.slots[2], 1)
        thread.join(10)

    assert raised == [cause.value]


def test_an_abort_without_a_cause(chip: Any, open_hef: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing else ever comes."""
    monkeypatch.setattr(ring, "CAUSE_S", 0.05)
    chip.reset(faults={"job": 63})

    with open_hef() as engine, pytest.raises(DeviceError, match="the run ended after an earlier failure"):
        engine.infer(pictures(1))


def test_a_chip_that_hangs(chip: Any, open_hef: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds without an answer are a failure; results before it are delivered, and it can be closed."""
    monkeypatch.setattr(ring, "ANSWER_S", 0.2)
    monkeypatch.setattr(ring, "CAUSE_S", 0.05)
    chip.reset(hang_after=1)

    with open_hef() as engine:
        engine.submit(engine.slots[0], 1)
        engine.submit(engine.slots[1], 1)
        engine.result(engine.slots[0])
        with pytest.raises(DeviceError, match="did not answer"):
            engine.result(engine.slots[1])
        with pytest.raises(DeviceError, match="did not answer"):
            engine.submit(engine.slots[2], 1)

    assert chip.events[-3:] == ["configured model left", "device released", "vdevice released"]


def test_a_queue_that_never_empties(chip: Any, open_hef: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The submitter waits for room again and again, but not forever."""
    monkeypatch.setattr(ring, "ANSWER_S", 0.3)
    monkeypatch.setattr(ring, "SPACE_POLL_MS", 50)
    chip.reset(queue_size=2, hang_after=0)

    with open_hef() as engine:
        engine.submit(engine.slots[0], 1)
        engine.submit(engine.slots[1], 1)
        with pytest.raises(DeviceError, match=r"make space for a batch within 0 s: the chip does not answer in time"):
            engine.submit(engine.slots[2], 1)


def test_a_chip_that_is_slow_to_be_ready(chip: Any, open_hef: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time-out of the wait alone is not a failure."""
    monkeypatch.setattr(ring, "SPACE_POLL_MS", 10)
    chip.reset(not_ready=5)

    with open_hef() as engine:
        assert marks(engine.infer(pictures(8))) == [8]


def test_a_callback_never_raises(open_hef: Open) -> None:
    """An exception from the callback would end the process, even where HailoRT's object is broken."""

    class Odd:
        @property
        def exception(self) -> None:
            raise RuntimeError("odd")

    with open_hef() as engine:
        slot: Any = engine.slots[0]
        slot.callback(completion_info=Odd())
        slot.count = 1
        with pytest.raises(DeviceError, match="odd"):
            engine.result(slot)


def test_no_chip_or_a_busy_one(chip: Any) -> None:
    """Status 74 is both; only a scan can distinguish them, and that is not wrapped by pyhailort."""
    platform = load_platform()
    chip.reset(devices=[])
    with pytest.raises(DeviceError, match="no Hailo chip was found"):
        Chip(platform)
    chip.reset(devices=[{"id": "0001:01:00.0", "arch": "HAILO8", "busy": True}])
    with pytest.raises(DeviceError, match="in use"):
        Chip(platform)
    chip.reset(devices=[], faults={"scan": 36})
    with pytest.raises(DeviceError, match=r"look for chips.*status 36"):
        Chip(platform)


def test_a_second_engine_finds_the_chip_in_use(open_hef: Open) -> None:
    """One process, one chip."""
    with open_hef(), pytest.raises(DeviceError, match="in use"):
        open_hef()


@pytest.mark.parametrize("arch", ["hailo10h", "hailo15h"])
def test_a_file_for_another_generation_is_refused_before_the_chip_is_opened(
    chip: Any, open_hef: Open, arch: str
) -> None:
    """HailoRT 4 does not drive those chips."""
    with pytest.raises(DeviceError, match=rf"for a {arch}, which HailoRT 4.23.0 does not drive.*hailo-h10-all"):
        open_hef(Recipe(arch=arch))

    assert chip.events == []


def test_an_8_file_on_an_8l(chip: Any, open_hef: Open) -> None:
    """It never runs; the flag that compiles one that does is named."""
    chip.reset(devices=[{"id": "0001:01:00.0", "arch": "HAILO8L"}])

    with pytest.raises(DeviceError, match="--hw-arch hailo8l"):
        open_hef()

    assert chip.events[-1] == "vdevice released"


def test_hailort_sees_other_shapes(chip: Any, open_hef: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two readers of one file that disagree: nothing is run, and the error names both."""
    from hailo_double import network

    original = network.read_network

    def other(path: str) -> Any:
        found = original(path)
        found.raw[0]["shape"] = [8, 12, 60]
        return found

    from hailo_platform.pyhailort import pyhailort

    monkeypatch.setattr(pyhailort, "read_network", other)
    with pytest.raises(ModelError, match=r"read different shapes.*\(8, 12, 60\)"):
        open_hef()


# --- status 6 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version, likely", [("2.2.4", True), ("1.24.2", False)])
def test_numpy_2_with_an_old_extension(
    chip: Any, open_hef: Open, monkeypatch: pytest.MonkeyPatch, version: str, likely: bool
) -> None:
    """Every run fails with status 6 then; that is not our bug, and the line names the cure."""
    chip.reset(faults={"run_async": 6})
    monkeypatch.setattr(np, "__version__", version)

    with open_hef() as engine, pytest.raises(DeviceError) as caught:
        engine.infer(pictures(1))

    assert ("numpy 2.2.4 is the likely cause: HailoRT 4.23.0" in str(caught.value)) == likely
    assert ("pip install 'numpy<2'" in str(caught.value)) == likely
    assert ("bug of hefkit" in str(caught.value)) == (not likely)


def test_a_batch_larger_than_the_queue(chip: Any, open_hef: Open) -> None:
    """configure() refuses it with status 6; one picture at a time, the cure, works."""
    chip.reset(faults={"configure": 6})
    with pytest.raises(DeviceError, match=r"does not take batches of 8 pictures.*use a smaller --batch-size"):
        open_hef(batch_size=8)

    chip.reset()
    with open_hef(batch_size=1) as engine:
        assert marks(engine.infer(pictures(7))) == [7]
