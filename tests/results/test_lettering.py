"""Class names in any script: in their own letters where Pillow and a font are there, else a number and one warning."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from hefkit.detect.detections import Detections
from hefkit.results import lettering
from hefkit.results.draw import annotate
from hefkit.results.lettering import drawn_name

ONE = Detections(np.array([[40, 60, 300, 200]], np.float32), np.array([0.9], np.float32), np.zeros(1, np.int64))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What is remembered about Pillow, fonts and warnings is forgotten, before and after."""
    caches = [value for value in vars(lettering).values() if hasattr(value, "cache_clear")]
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def picture(name: str) -> np.ndarray:
    """One box with this name on gray."""
    return annotate(np.full((240, 400, 3), 128, np.uint8), ONE, {0: name})


@pytest.mark.parametrize("name", ["drone", "Stra\u00dfe", "caf\u00e9"])
def test_latin_names_do_not_need_pillow(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are drawn in ASCII, as ever."""
    monkeypatch.setattr(lettering, "_pillow", lambda: pytest.fail("Pillow is not asked"))
    assert drawn_name(name, 0) == {"Stra\u00dfe": "Strasse", "caf\u00e9": "cafe"}.get(name, name)


@pytest.mark.parametrize(
    ("pillow", "words"), [(None, "Pillow is not installed"), (object(), "no font has its letters: sudo apt install")]
)
def test_without_pillow_or_a_font(
    pillow: object, words: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`class0`, and one warning for a name, however often it is drawn."""
    monkeypatch.setattr(lettering, "_pillow", lambda: pillow)
    monkeypatch.setattr(lettering, "FONT_FOLDERS", ())

    first = picture("\u0434\u0440\u043e\u043d")
    np.testing.assert_array_equal(first, picture("\u0434\u0440\u043e\u043d"))
    np.testing.assert_array_equal(first, picture("class0"))
    [warning] = [record.getMessage() for record in caplog.records]
    assert words in warning and warning.endswith("pictures say class0")


def test_with_pillow(caplog: pytest.LogCaptureFixture) -> None:
    """Cyrillic letters are drawn where the label of class0 would be; another word gives another picture."""
    pytest.importorskip("PIL")
    if drawn_name("\u0434\u0440\u043e\u043d", 0) == "class0":
        pytest.skip("no font with Cyrillic letters: apt-get install fonts-dejavu-core")
    one, two = picture("\u0434\u0440\u043e\u043d"), picture("\u043f\u0442\u0438\u0446\u0430")

    for drawn in (one, two):
        changed = np.argwhere((drawn != 128).any(axis=2))
        assert changed[:, 0].min() >= 30 and not np.array_equal(drawn, picture("class0"))
    assert not np.array_equal(one, two) and not caplog.records
    ink = lettering.letters("\u0434\u0440\u043e\u043d 0.90", 0.5)
    assert ink.dtype == np.uint8 and 8 <= ink.shape[0] <= 24 and ink.max() > 200
