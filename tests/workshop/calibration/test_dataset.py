"""A data.yaml from anywhere: whatever it holds, one sentence, at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hefkit.errors import DataError, UsageError
from hefkit.names import parse_names
from hefkit.workshop.calibration.dataset import find_dataset

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 40))
HOSTILE = {
    "aliases": f"{BOMB}train: *a39\nnames: *a39\n",
    "aliases as path": f"{BOMB}train: x\npath: *a39\nnames: [*a39]\n",
    "bool": "train: !!bool x\nnames: !!bool x\n",
    "int": 'train: !!int ""\nnames: !!int ""\n',
    "float": 'train: !!float ""\nnames: [!!float ""]\n',
    "timestamp": "train: !!timestamp x\nnames: !!timestamp x\n",
    "python": "train: !!python/object/apply:os.system [x]\nnames: 5\n",
    "merge": f"{BOMB}<<: [{{<<: *a39}}]\ntrain: [[]]\nnames: [[]]\n",
    "nested": "train: " + "[" * 5000,
    "huge": "train: [" + "x, " * 500_000 + "]",
    "no value": "train: ~\nnames: null\n",
    "empty list": "train: []\npath: []\nnames: []\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_yaml(tmp_path: Path, text: str) -> None:
    """No hang, no traceback, and no long message."""
    path = tmp_path / "data.yaml"
    path.write_text(text)

    with pytest.raises(DataError) as dataset:
        find_dataset(str(path), None, tmp_path / "out")
    with pytest.raises(UsageError) as names:
        parse_names(str(path))
    assert len(str(dataset.value)) < 1000 and len(str(names.value)) < 1000


def test_a_pipe_as_yaml(tmp_path: Path) -> None:
    """It is refused; reading it would wait for ever."""
    os.mkfifo(tmp_path / "data.yaml")

    with pytest.raises(DataError, match="a pipe or a device"):
        find_dataset(str(tmp_path / "data.yaml"), None, tmp_path / "out")
    with pytest.raises(UsageError, match="a pipe or a device"):
        parse_names(str(tmp_path / "data.yaml"))


@pytest.mark.parametrize("root", ["", "path:\n", "path: []\n", "path: [.]\n"])
def test_words_that_yaml_takes_for_values(tmp_path: Path, root: str) -> None:
    """A folder called `no` is a folder; `val:` and `path:` without a value are not there."""
    (tmp_path / "no").mkdir()
    (tmp_path / "no" / "a.jpg").touch()
    (tmp_path / "data.yaml").write_text(f"{root}train: no\nval:\ntest: ~\nnc: 1\n")

    found = find_dataset(str(tmp_path / "data.yaml"), None, tmp_path / "out")
    assert [item.path.name for item in found.items] == ["a.jpg"] and found.splits == ("train",)
