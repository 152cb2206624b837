"""`--names` and `--classes`: what a user types becomes class ids and printable names, or one clear sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hefkit.errors import ToolchainError, UsageError
from hefkit.names import class_folders, find_classes, model_names, parse_names, readable
from tests.helpers.heads import make_head, make_spec

NAMES = {0: "person", 1: "traffic light", 2: "Dog", 3: "dog", 4: "7", 5: "bird", 6: "bird"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("drone", {0: "drone"}, id="one"),
        pytest.param("drone,bird", {0: "drone", 1: "bird"}, id="two"),
        pytest.param(" a , b ", {0: "a", 1: "b"}, id="spaces around"),
        pytest.param("a,,c", {0: "a", 2: "c"}, id="a nameless class"),
        pytest.param("pièce,犬", {0: "pièce", 1: "犬"}, id="any alphabet"),
    ],
)
def test_names_on_the_command_line(text: str, expected: dict[int, str]) -> None:
    """Names with commas between them, in class order."""
    assert parse_names(text) == expected


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        pytest.param("n.txt", "a\nb\n", {0: "a", 1: "b"}, id="lines"),
        pytest.param("n.names", "\ufeffa\r\nb c\r\n\r\n", {0: "a", 1: "b c"}, id="Windows file"),
        pytest.param("n.txt", "a\n\nc", {0: "a", 2: "c"}, id="an empty line keeps its number"),
        pytest.param("d.yaml", "names: [a, b]", {0: "a", 1: "b"}, id="YAML list"),
        pytest.param("d.yml", "nc: 2\nnames:\n  1: b\n  0: a\n", {0: "a", 1: "b"}, id="YAML dict"),
        # YAML 1.1 reads these as False, 1 and 2.5 unless told not to
        pytest.param("d.yaml", "names: [no, 1, 2.5]", {0: "no", 1: "1", 2: "2.5"}, id="YAML words stay words"),
    ],
)
def test_names_in_a_file(tmp_path: Path, name: str, content: str, expected: dict[int, str]) -> None:
    """One name a line, or the `names` of a data.yaml."""
    (tmp_path / name).write_bytes(content.encode())

    assert parse_names(str(tmp_path / name)) == expected


BOTH = {0: "drone", 1: "IR-drone"}
ONE_UP = {1: "drone", 2: "IR-drone"}
OTHERS = {
    "JSON list": ('["drone", "IR-drone"]', BOTH),
    "JSON in several lines": ('[\n  "drone",\n  "IR-drone"\n]\n', BOTH),
    "labels": ('{"labels": ["drone", "IR-drone"]}', BOTH),
    "labels with more": ('{"detection_threshold": 0.5, "labels": ["drone", "IR-drone"]}', BOTH),
    "id map": ('{"0": "drone", "1": "IR-drone"}', BOTH),
    "id map of transformers": ('{"id2label": {"0": "drone", "1": "IR-drone"}}', BOTH),
    "class to id": ('{"drone": 0, "IR-drone": 1}', BOTH),
    "COCO categories": ('{"categories": [{"id": 1, "name": "drone"}, {"id": 2, "name": "IR-drone"}]}', ONE_UP),
    "CVAT labels": ('[{"name": "drone", "color": "#fff"}, {"name": "IR-drone"}]', BOTH),
    "Python dict": ("{0: 'drone', 1: 'IR-drone'}", BOTH),
    "numbered with spaces": ("0  drone\n1  IR-drone\n", BOTH),
    "numbered with colons": ("0: drone\n1: 'IR-drone'\n", BOTH),
    "numbered with commas": ("0,drone\n1,IR-drone", BOTH),
    "numbered with tabs": ("0\tdrone\r\n1\tIR-drone\r\n", BOTH),
    "numbered with gaps": ("0 drone\n\n2 IR-drone", {0: "drone", 2: "IR-drone"}),
    "numbered from 1": ("1 drone\n2 IR-drone", ONE_UP),
    "label map": ("item {\n  id: 1\n  name: 'drone'\n}\nitem {\n  id: 2\n  display_name: \"IR-drone\"\n}\n", ONE_UP),
    "names that begin with digits": ("2 wheeler\n4 wheeler", {0: "2 wheeler", 1: "4 wheeler"}),
    "some begin with digits": ("0 shot\ndrone", {0: "0 shot", 1: "drone"}),
    "Latin-1": ("B\u00e4r\nFl\u00fcgel", {0: "B\u00e4r", 1: "Fl\u00fcgel"}),
}


@pytest.mark.parametrize("suffix", [".txt", ".json"])
@pytest.mark.parametrize("content, expected", OTHERS.values(), ids=OTHERS.keys())
def test_names_of_other_software(tmp_path: Path, content: str, expected: dict[int, str], suffix: str) -> None:
    """The content tells the kind, not the suffix; never a class called `{"labels": [...]}`."""
    path = tmp_path / f"names{suffix}"
    path.write_bytes(content.encode("latin-1"))

    assert parse_names(str(path)) == expected


@pytest.mark.parametrize("name", ["labelmap.txt", "labels.json", "list.json"])
def test_the_real_files(shared: Path, name: str) -> None:
    """Those of ../shared/field."""
    assert parse_names(str(shared / "field" / "03-names" / name)) == BOTH


@pytest.mark.parametrize(
    "given",
    [
        {0: "unlabeled", 1: "drone", 2: "IR-drone"},
        {0: "__background__", 1: "drone", 2: "IR-drone"},
        {1: "unlabeled", 2: "drone", 3: "IR-drone"},
        ONE_UP,
        {1: "drone", 90: "IR-drone"},
    ],
    ids=["unlabeled", "background", "both", "from 1", "from 1 with gaps, as COCO"],
)
def test_ids_that_are_one_too_high(given: dict[int, str], caplog: pytest.LogCaptureFixture) -> None:
    """The model has two classes, and only this reading gives each a name; a line says how it was read."""

    assert model_names(given, make_spec(make_head(num_classes=2))) == BOTH
    assert "class 0 is drone" in caplog.text


@pytest.mark.parametrize("given", [{0: "unlabeled", 1: "drone"}, {1: "drone"}])
def test_ids_that_fit_stay(given: dict[int, str]) -> None:
    """A model may have been trained with a class `unlabeled`, and one may name some classes only."""
    assert given.items() <= model_names(given, make_spec(make_head(num_classes=2))).items()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("n.txt", b"", "has no names", id="empty"),
        pytest.param("n.txt", b"\n\n", "has no names", id="blank lines"),
        pytest.param("n.txt", b"a\x1b[31mb", "control characters", id="escape sequence"),
        pytest.param("n.txt", b"\xff\xfe", "has no names", id="nothing in UTF-16"),
        pytest.param("n.json", b'{"labels": 3}', "has no names", id="JSON without names"),
        pytest.param("n.txt", b'{"labels": ["drone", }', "neither valid JSON nor", id="JSON broken"),
        pytest.param("n.json", b"[" * 5000 + b"]", "neither valid JSON nor", id="JSON too deep"),
        pytest.param("n.json", b"[1, 2]", "is not text", id="JSON numbers"),
        pytest.param("n.json", b'{"a": "b"}', "a is not a class id", id="JSON word for a number"),
        pytest.param("n.txt", b"x" * 201, "201 characters", id="long name"),
        pytest.param("d.yaml", b"nc: 3", "has no names", id="YAML without names"),
        pytest.param("d.yaml", b"names: 3", "has no names", id="YAML names of another kind"),
        pytest.param("d.yaml", b"names: [[a]]", "is not text", id="YAML nested"),
        pytest.param("d.yaml", b"names: {a: b}", "a is not a class id", id="YAML word for a number"),
        pytest.param("d.yaml", b"names: {-1: b}", "-1 is not a class id", id="YAML negative"),
        pytest.param("d.yaml", b"names: {99999: b}", "99999 is not a class id", id="YAML huge"),
        pytest.param("d.yaml", b"names: [a", "not valid YAML", id="YAML broken"),
        pytest.param("d.yaml", b"names: !!python/object/apply:os.getcwd []", "no names", id="YAML that runs code"),
        pytest.param("d.yaml", b"[" * 5000, "not valid YAML", id="YAML too deep"),
    ],
)
def test_files_without_names_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """A file without usable names is a usage error that says what was wrong."""
    (tmp_path / name).write_bytes(content)

    with pytest.raises(UsageError, match=message):
        parse_names(str(tmp_path / name))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("coco.txt", "coco.txt does not exist", id="missing file"),
        pytest.param("lists/coco", "does not exist", id="missing path"),
        pytest.param("", "has no names", id="nothing"),
        pytest.param(",", "has no names", id="a comma"),
        pytest.param("a,b\nc", "control characters", id="line end inside"),
    ],
)
def test_bad_values_are_refused(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that is neither a file nor names is a usage error."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UsageError, match=message):
        parse_names(text)


def test_a_folder_is_no_file_of_names(tmp_path: Path) -> None:
    """The error contains the reason of the operating system."""
    with pytest.raises(UsageError, match="cannot read"):
        parse_names(str(tmp_path))


def test_yaml_without_pyyaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a YAML file needs PyYAML, and says so."""
    (tmp_path / "d.yaml").write_text("names: [a]")
    (tmp_path / "n.txt").write_text("a")
    monkeypatch.setitem(sys.modules, "yaml", None)

    assert parse_names(str(tmp_path / "n.txt")) == {0: "a"}
    with pytest.raises(ToolchainError, match="PyYAML"):
        parse_names(str(tmp_path / "d.yaml"))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param(["0", "5"], (0, 5), id="numbers"),
        pytest.param(["traffic light"], (1,), id="a name of two words"),
        pytest.param(["person", "0"], (0,), id="both spellings of one class"),
        pytest.param(["PERSON"], (0,), id="upper case"),
        pytest.param(["dog"], (3,), id="exact spelling first"),
        pytest.param(["DOG"], (2, 3), id="no exact spelling: both"),
        pytest.param(["bird"], (5, 6), id="classes that share a name"),
        pytest.param(["7"], (4,), id="a class whose name is an unused number"),
    ],
)
def test_find_classes(wanted: list[str], expected: tuple[int, ...]) -> None:
    """Classes by number or by name."""
    assert find_classes(wanted, NAMES) == expected


@pytest.mark.parametrize("word", ["cat", "8", "-1", "1.0", "٣", "9" * 5000, "\x1b[31m"])
def test_unknown_classes_name_the_known(word: str) -> None:
    """The message lists the classes of the model, and contains no control characters."""
    with pytest.raises(UsageError, match="0 person, 1 traffic light") as caught:
        find_classes([word], NAMES)

    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


def test_names_must_fit_the_model(caplog: pytest.LogCaptureFixture) -> None:
    """Too many names are refused; too few leave numbers, with a warning; no names mean those of the model."""

    spec = make_spec(make_head(num_classes=2), names={0: "drone", 1: "bird"})

    assert model_names(None, spec) == {0: "drone", 1: "bird"}
    assert model_names({0: "a", 1: "b"}, spec) == {0: "a", 1: "b"}
    assert caplog.text == ""
    assert model_names({1: "b"}, spec) == {0: "class0", 1: "b"}
    assert "1 of the model's 2 classes" in caplog.text
    with pytest.raises(UsageError, match="class 2, but the model has 2 classes"):
        model_names({2: "c"}, spec)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("person", "person", id="plain"),
        pytest.param("Müllwagen", "Mullwagen", id="umlaut"),
        pytest.param("Straße", "Strasse", id="sharp s"),
        pytest.param("piéton Œuvre", "pieton Œuvre".replace("Œ", ""), id="accents"),
        pytest.param("ﬁsh", "fish", id="ligature"),
        pytest.param("犬", "class3", id="no Latin letters"),
        pytest.param("a犬犬犬", "class3", id="hardly any"),
        pytest.param("", "class3", id="nameless"),
        pytest.param("\x1b[31m\n\x07", "[31m", id="control characters"),
        pytest.param("x" * 200, "x" * 30 + "..", id="long"),
    ],
)
def test_names_become_readable(name: str, expected: str) -> None:
    """OpenCV 4 draws ASCII only: a name is spelled in it, or replaced by its number."""
    assert readable(name, 3) == expected


def test_class_folders_are_safe_and_different() -> None:
    """Names from a model cannot leave `crops`, clash by letter case, or be too long for a file system."""
    names = {
        0: "../../etc",
        1: "a/b",
        2: "a b",
        3: "A_B",
        4: "",
        5: "...",
        6: "犬",
        7: "x" * 300,
        8: "con\x00\n",
        9: "-",
    }

    folders = class_folders(names)

    assert folders[0] == "etc" and folders[6] == "犬" and folders[1] == "a_b"
    assert len({f.casefold() for f in folders.values()}) == len(names)
    for folder in folders.values():
        assert folder and len(folder.encode()) <= 255 and not set(folder) & set("/\\\0\n.")
