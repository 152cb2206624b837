"""Topics, ids and entities, compared with what Home Assistant's documentation and sources accept."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hefkit import __version__
from hefkit.live.addresses import parse_topic
from hefkit.mqtt.messages import ALL_CLASSES, MAX_CLASSES, Counts, Entities, PeakCounts, Presence, Topics, class_words

# homeassistant/components/mqtt/discovery.py accepts PREFIX/COMPONENT/[NODE/]OBJECT/config with these letters
CONFIG_TOPIC = re.compile(r"homeassistant/(sensor|binary_sensor|image|event)/[a-zA-Z0-9_-]+/[a-zA-Z0-9_-]+/config")
DIAGNOSTIC = {"entity_category": "diagnostic", "state_class": "measurement"}
COUNT = {"unit_of_measurement": "objects", "state_class": "measurement", "icon": "mdi:counter"}


def test_entities() -> None:
    """One device with its sensors; every one knows where its state is, and when it is gone."""
    entities = Entities(Topics("garden/cam"), "models/best.hef", {0: "drone"}, "hailort")
    configs = {topic: json.loads(payload) for topic, payload in entities.announced(())}
    node = Topics("garden/cam").node
    common = [
        {key: config.pop(key) for key in ("availability_topic", "device", "origin")} for config in configs.values()
    ]

    assert re.fullmatch(r"hefkit_garden_cam_[0-9a-f]{6}", node)
    assert common == 7 * [
        {
            "availability_topic": "garden/cam/availability",
            "device": {
                "identifiers": [node],
                "name": "hefkit garden/cam",
                "manufacturer": "hefkit",
                "model": "best.hef (hailort)",
                "sw_version": __version__,
            },
            "origin": {"name": "hefkit", "sw_version": __version__},
        }
    ]
    assert configs == {
        f"homeassistant/binary_sensor/{node}/present/config": {
            "name": "Object present", "unique_id": f"{node}_present", "state_topic": "garden/cam/present",
            "device_class": "occupancy",
        },
        f"homeassistant/sensor/{node}/total/config": {
            "name": "Objects", "unique_id": f"{node}_total", "state_topic": "garden/cam/total", **COUNT,
        },
        f"homeassistant/image/{node}/snapshot/config": {
            "name": "Snapshot", "unique_id": f"{node}_snapshot", "image_topic": "garden/cam/snapshot",
            "content_type": "image/jpeg",
        },
        f"homeassistant/event/{node}/events/config": {
            "name": "Appeared or left", "unique_id": f"{node}_events", "state_topic": "garden/cam/events",
            "event_types": ["appeared", "left"],
        },
        f"homeassistant/sensor/{node}/fps/config": {
            "name": "Frame rate", "unique_id": f"{node}_fps", "state_topic": "garden/cam/state",
            "value_template": "{{ value_json.fps }}", "unit_of_measurement": "fps", "icon": "mdi:speedometer",
            **DIAGNOSTIC,
        },
        f"homeassistant/sensor/{node}/temperature/config": {
            "name": "Chip temperature", "unique_id": f"{node}_temperature", "state_topic": "garden/cam/state",
            "value_template": "{{ value_json.temperature_c }}", "unit_of_measurement": "°C",
            "device_class": "temperature", **DIAGNOSTIC,
        },
        f"homeassistant/sensor/{node}/count_drone/config": {
            "name": "drone", "unique_id": f"{node}_count_drone", "state_topic": "garden/cam/counts/drone", **COUNT,
        },
    }  # fmt: skip


def test_detectors_do_not_meet() -> None:
    """Topics that look alike once their signs are gone have other names in Home Assistant."""
    bases = ["a/b", "a_b", "A/b", "a/b_", "ä/b", "/".join("abcdefghijklmnopqrstuvwxyz" * 3)]
    nodes = {Topics(base).node for base in bases}

    assert len(nodes) == len(bases)
    assert all(re.fullmatch(r"[a-z0-9_]{1,60}", node) for node in nodes)


@pytest.mark.parametrize(
    "names, words",
    [
        pytest.param({0: "drone", 1: "IR-drone"}, ["drone", "ir-drone"], id="as they are"),
        pytest.param({0: "stop sign"}, ["stop_sign"], id="a blank"),
        pytest.param({0: "a/b", 1: "#", 2: "+"}, ["a_b", "class-1", "class-2"], id="signs of topics"),
        pytest.param({0: "Vögel", 1: "鳥", 2: ""}, ["vogel", "class1", "class2"], id="no ASCII"),
        pytest.param({0: "x", 1: "X", 2: "x"}, ["x", "x-1", "x-2"], id="the same but for capitals"),
        pytest.param({0: "{{ 7*7 }}"}, ["7_7"], id="a template"),
    ],
)
def test_class_words(names: dict[int, str], words: list[str]) -> None:
    """Readable where possible, different always."""
    assert [class_words(names)[i] for i in names] == words


@given(st.dictionaries(st.integers(0, 50), st.text(max_size=70), min_size=1, max_size=20))
def test_any_class_names(names: dict[int, str]) -> None:
    """Every name gives another word, topics that can be published to, ids that Home Assistant takes, and JSON."""
    words = class_words(names)
    topics = Topics("hefkit")

    assert len(set(words.values())) == len(names)
    messages = Entities(topics, "m", names, "float").announced(())
    assert len(messages) == 6 + len(names)
    for class_id, (topic, payload) in zip(names, messages[6:], strict=True):
        assert topic.endswith(f"/count_{words[class_id]}/config")
        assert CONFIG_TOPIC.fullmatch(topic)
        assert parse_topic(topics.count(words[class_id])) == topics.count(words[class_id])
        assert json.loads(payload)["name"].isprintable()
        assert payload.isascii()


def test_a_large_model_announces_what_it_sees(caplog: pytest.LogCaptureFixture) -> None:
    """All classes of a small one; of a large one those that came, up to a limit that is logged once."""
    topics = Topics("t")
    small = Entities(topics, "m", dict.fromkeys(range(ALL_CLASSES), "x"), "float")
    large = Entities(topics, "m", {i: f"c{i}" for i in range(500)}, "float")

    assert len(small.announced(())) == 6 + ALL_CLASSES
    assert len(large.announced(())) == 6
    assert len(large.announced([7, 7, 3])) == 8
    assert large.states(Counts(4, {7: 3})) == [
        ("t/total", "4"), ("t/present", "ON"), ("t/counts/c7", "3"), ("t/counts/c3", "0")
    ]  # fmt: skip
    assert large.states(Counts(None, {})) == [
        (topic, "None") for topic in ("t/total", "t/present", "t/counts/c7", "t/counts/c3")
    ]
    for _ in range(2):
        assert len(large.announced(range(500))) == 6 + MAX_CLASSES
    assert caplog.text.count("MQTT has no counts for the others") == 1


class TestPeakCounts:
    """The highest counts between two calls."""

    def test_the_most_of_one_frame(self) -> None:
        """A bird that is there in three frames of thirty is there; two frames with one drone are one drone."""
        seen = PeakCounts()
        for ids in ([0], [0, 1, 1], [0], []):
            seen.add(ids)

        assert seen.take() == Counts(3, {0: 1, 1: 2})
        assert seen.take() is None
        seen.add([])
        assert seen.take() == Counts(0, {})

    def test_unknown_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without frames for long, the last counts are no longer true."""
        seen = PeakCounts()
        seen.add([0])
        seen.take()
        monkeypatch.setattr("hefkit.mqtt.messages.BLIND_S", 0.0)

        assert seen.take() == Counts(None, {})


def test_presence() -> None:
    """A flicker is not an event; without a frame nothing leaves; every class has its own events."""
    presence = Presence()

    assert presence.events(Counts(2, {0: 2}), 10.0) == [("appeared", 0, 2)]
    assert presence.events(Counts(0, {}), 11.0) == []
    assert presence.events(Counts(2, {0: 1, 3: 1}), 12.0) == [("appeared", 3, 1)]
    assert presence.events(Counts(None, {}), 30.0) == []
    assert presence.events(Counts(1, {3: 1}), 31.0) == [("left", 0, 0)]
    assert presence.events(Counts(1, {0: 1}), 32.0) == [("appeared", 0, 1)]
    assert presence.events(Counts(0, {}), 35.1) == [("left", 3, 0), ("left", 0, 0)]
    assert presence.events(Counts(0, {}), 36.0) == []
