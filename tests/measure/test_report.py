"""The report of a validation: one page that needs nothing else, with everything that was measured, in order."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hefkit.measure.labels import labelled_pictures
from hefkit.measure.report.pictures import TYPICAL, WORST, choose, difference
from hefkit.measure.report.write import write_report
from hefkit.measure.validate import Validation, validate
from hefkit.pictures.find import find_images
from hefkit.pictures.sources import find_items
from tests.helpers.boxes import detections
from tests.helpers.chromium import browser_tab, find_chromium
from tests.helpers.labelled import dataset, float_engine, int8_engine, opened


def measured(folder: Path) -> Validation:
    """A model that finds the boxes a little beside their place, beside the float one; a class name with markup."""
    data = dataset(folder / "data", names='[car, "<b>drone</b>", bird]')
    items, names = labelled_pictures(str(data), "val")
    engines = {"best.onnx": float_engine(), "m.emulated.onnx": int8_engine(box=(14, 14, 44, 44))}
    return validate(
        [Path("m.emulated.onnx")], Path("best.onnx"), items, lambda p: opened(engines, p),
        labelled=True, names=names,
    )  # fmt: skip


@pytest.fixture
def result(tmp_path: Path) -> Validation:
    """A validation of which a report can be written."""
    return measured(tmp_path)


def page(result: Validation, folder: Path) -> str:
    """The page; skipped without the template library."""
    pytest.importorskip("jinja2", reason="the Pi's environment has no Jinja2")
    write_report(result, folder)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where matplotlib is missing; for tests of the other parts, because the curves take most of the time."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page that is only read."""
    folder = tmp_path_factory.mktemp("report")
    return page(measured(folder), folder / "report")


def test_the_page_is_self_contained(html: str) -> None:
    """Pictures are data, there is no script, and nothing is asked from a network; names are text, not markup."""
    references = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)["']""", html)
    assert references and all(r.startswith(("data:image/jpeg;base64,", "#")) for r in references)
    assert "<script" not in html and "url(http" not in html and "@import" not in html
    addresses = set(re.findall(r"https?://[\w./-]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "<b>drone" not in html and "&lt;b&gt;drone" in html
    assert "prefers-color-scheme: dark" in html and "width=device-width" in html


def test_the_verdict_comes_first(html: str) -> None:
    """Verdict, models, next steps, classes, pictures, in this order; it says that it is an emulation."""
    order = ["(INT8 emulation, not the chip)", "The models", "Which confidence", "What to do next",
             "What each class lost", "Noise of the output tensors", "Where they differ most"]  # fmt: skip
    places = [html.index(words) for words in order]
    assert places == sorted(places)
    assert "python3 hailo_inference.py m.emulated.onnx" in html or "python3 compile_to_hef.py best.onnx" in html


@pytest.mark.parametrize(
    "quality, rows",
    [
        ({"causes": {"layers": [{"layer": "/m.1/<Conv>", "share": 0.31}]}}, ["/m.1/&lt;Conv&gt;", "31 % of the noise"]),
        ({"layer_snr_db": {"net/conv2": 21.0, "net/conv1": 4.0}}, ["net/conv1", "4.0 dB", "net/conv2", "21.0 dB"]),
        ({"causes": {"layers": [1]}}, []),
        ({"recall": 0.97}, []),
        (None, []),
    ],
    ids=["emulation", "Hailo's log", "of another program", "not measured", "no quality"],
)
def test_layers_that_lose_most(
    no_curves: None, result: Validation, tmp_path: Path, quality: dict[str, Any] | None, rows: list[str]
) -> None:
    """Where the compile measured its layers, the page has them, worst first; else it has no such table."""
    run = result.runs[0]
    run.spec = replace(run.spec, quality=quality)
    html = page(result, tmp_path / "report")

    assert ("Layers that lose most" in html) == bool(rows)
    places = [html.index(words) for words in rows]
    assert places == sorted(places)


def test_json_and_pictures_lie_beside_it(no_curves: None, result: Validation, tmp_path: Path) -> None:
    """report.json is what --json prints; panels are pictures, and later steps know that they are no photographs."""
    folder = tmp_path / "report"
    page(result, folder)

    assert json.loads((folder / "report.json").read_bytes()) == result.to_json()
    assert result.report == folder / "report.html"
    panels = sorted(p.name for p in (folder / "pictures").glob("*.jpg"))
    assert len(panels) == 4 * 3 and panels[0].startswith("worst-000000-")
    assert cv2.imread(str(folder / "pictures" / panels[0])).shape == (64, 64, 3)
    (folder / "photograph.png").write_bytes(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    assert len(find_images(folder)) == 13 and [i.path.name for i in find_items(str(folder))] == ["photograph.png"]


def test_a_second_report_replaces_the_first(no_curves: None, result: Validation, tmp_path: Path) -> None:
    """Panels of pictures that are not shown any more go; foreign files stay."""
    folder = tmp_path / "report"
    page(result, folder)
    old, foreign = folder / "pictures" / "worst-000099-float.jpg", folder / "pictures" / "mine.jpg"
    old.write_bytes(b"old")
    foreign.write_bytes(b"mine")

    page(result, folder)

    assert not old.exists() and foreign.read_bytes() == b"mine"


def test_without_matplotlib(no_curves: None, result: Validation, tmp_path: Path) -> None:
    """Tables and pictures are there, and what is missing is said."""
    html = page(result, tmp_path / "report")

    assert "<svg" not in html and "The curves are missing: the Python package matplotlib is not installed" in html
    assert "Where they differ most" in html


def test_without_jinja2(no_curves: None, result: Validation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """report.json and the pictures, with a sentence."""
    monkeypatch.setitem(sys.modules, "jinja2", None)

    write_report(result, tmp_path / "report")

    assert {p.name for p in (tmp_path / "report").iterdir()} == {"report.json", "pictures"}
    assert result.report == tmp_path / "report" / "report.json"
    assert "report.html was not written: the Python package Jinja2 is missing" in result.warnings[-1]
    assert json.loads((tmp_path / "report" / "report.json").read_bytes())["report"] == str(result.report)


def test_curves_follow_the_page_s_colours(html: str) -> None:
    """Four drawings in text and lines of the page's colour, whose ids do not clash."""
    pytest.importorskip("matplotlib", reason="the Pi's environment has no matplotlib")
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) == 4 and all("currentColor" in svg and "<text" in svg for svg in drawings)
    ids = [name for svg in drawings for name in set(re.findall(r'id="([^"]+)"', svg))]
    assert len(ids) == len(set(ids))
    for svg in drawings:
        used = set(re.findall(r"(?:href=\"|url\()#([^\")]+)", svg))
        assert used <= set(re.findall(r'id="([^"]+)"', svg))


# --- which pictures --------------------------------------------------------------------------------------------------


def test_the_difference_of_two_pictures() -> None:
    """One found with IoU 0.75, one missing, one extra: 2.25."""
    expected = detections((0, 0, 4, 4, 0, 0.9), (20, 20, 30, 30, 1, 0.8))
    found = detections((0, 0, 3, 4, 0, 0.9), (50, 50, 60, 60, 1, 0.8))

    assert difference(expected, found) == (2.25, "1 the same, 1 missing, 1 extra")


def test_the_worst_and_some_typical_ones() -> None:
    """Of a hundred: the ten with the largest difference, and four from the middle; unreadable ones never."""
    differences: list[float | None] = [i / 10 for i in range(100)]
    differences[99] = None

    worst, typical = choose(differences)

    assert worst == [*range(98, 98 - WORST, -1)]
    assert len(typical) == TYPICAL and all(40 <= i <= 60 for i in typical)


def test_few_or_equal_pictures() -> None:
    """Where nothing differs nothing is the worst; three pictures are shown once."""
    assert choose([0.0, 0.0, None]) == ([], [0, 1])
    assert choose([1.0, 0.5, 0.0]) == ([0, 1], [2])


# --- in a browser ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_fits_a_desk_and_a_phone(html: str, tmp_path: Path) -> None:
    """At 1280 and 390 pixels, light and dark: nothing overflows, text is readable, the browser has no complaint."""
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here")
    (tmp_path / "report.html").write_text(html, encoding="utf-8")

    async def look() -> None:
        async with browser_tab(str(program), tmp_path / "profile") as tab:
            for scheme, back in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 23, 27)")):
                feature = {"name": "prefers-color-scheme", "value": scheme}
                await tab.call("Emulation.setEmulatedMedia", features=[feature])
                for width in (1280, 390):
                    await tab.size(width, 900, mobile=width < 500)
                    await tab.open((tmp_path / "report.html").as_uri())
                    assert await tab.evaluate("document.documentElement.scrollWidth") == width
                    assert await tab.evaluate("getComputedStyle(document.body).backgroundColor") == back
                    loaded = "[...document.images].every(i => i.complete && i.naturalWidth > 0)"
                    assert await tab.until(loaded)
            assert tab.said == []

    asyncio.run(look())
