"""The script that the compiler gets: the base file, and what hefkit knows of the network and the pictures.

Keywords are merged into the base's line, in place. A flag replaces the file's value, and no size exceeds the number of
pictures; each such change is marked in the text and becomes a warning. If a line of the base contradicts an addition,
ModelError says which line to remove.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hefkit.errors import ModelError
from hefkit.workshop.script.commands import (
    Command,
    Script,
    compression,
    finetune,
    layers,
    level,
    merged,
    names_layer,
    whole,
)
from hefkit.workshop.script.grammar import parse, printed

DEFAULT_BATCH = 8  # the compiler's own
# level -> how many pictures its pass takes by default; with fewer pictures the compiler stops
FINETUNE_PICTURES = 1024
ADAROUND_PICTURES = {3: 256, 4: 1024}
MARK = "# added by hefkit"
CHANGED = "# changed by hefkit"


@dataclass(frozen=True)
class Additions:
    """What the flags, the parsed network and the calibration set add to a base script; None: not known."""

    level: int | None = None  # --optimization-level
    sigmoid_layers: tuple[str, ...] = ()  # class convolutions, by the compiler's names; (): not known yet, or logits
    calibration_batch: int | None = None  # --batch-size; None: the script's, else 8
    calibset_size: int | None = None  # how many pictures the compiler is given
    wide_layers: tuple[str, ...] = ()  # to be stored in 16 bit, by the compiler's names
    finetune_size: int | None = None  # pictures for fine-tuning and other passes; None: as many as there are
    logits: bool = False  # --logits: class tensors stay raw


def compose(base: Script, additions: Additions) -> Script:
    """Base and additions in one script; its `notes` say what changed in the base.

    Raises:
        ModelError: a line of the base contradicts what hefkit must add.
    """
    return _Composer(base, additions).script()


class _Composer:
    def __init__(self, base: Script, additions: Additions) -> None:
        self.base = base
        self.add = additions
        self.changed: dict[int, Command] = {}  # line of the base -> the command that replaces it
        self.new: list[str] = []
        self.notes: list[str] = []

    def script(self) -> Script:
        self._flavor()
        self._calibration()
        self._pass_sizes()
        self._sigmoids()
        self._wide()
        text = self._text()
        composed, faults = parse(text, self.base.source)
        assert not faults, faults
        return Script(text, composed.commands, self.base.source, tuple(self.notes))

    def _flavor(self) -> None:
        wanted: dict[str, str] = {}
        if self.add.level is not None:
            wanted = {"optimization_level": str(self.add.level), "compression_level": "0"}
        elif compression(self.base) is None:
            wanted = {"compression_level": "0"}
        old = self.base.named("model_optimization_flavor")
        before = compression(self.base)
        if self.add.level is not None and before:
            self._note(old[-1], f"--optimization-level changes compression_level={before} to 0")
        if wanted:
            self._put("model_optimization_flavor", None, wanted)

    def _calibration(self) -> None:
        pictures = self.add.calibset_size
        if pictures is None and self.add.calibration_batch is None:
            return
        old = merged(self.base, "model_optimization_config", "calibration")
        wanted: dict[str, str] = {}
        asked = whole(old.keyword("calibset_size")) if old else None
        if pictures is not None:
            wanted["calibset_size"] = str(min(pictures, asked or pictures))
        batch = self.add.calibration_batch or (whole(old.keyword("batch_size")) if old else None) or DEFAULT_BATCH
        wanted = {"batch_size": str(min(batch, int(wanted.get("calibset_size", batch)))), **wanted}
        self._note_changes(old, wanted)
        self._put("model_optimization_config", "calibration", wanted)

    def _pass_sizes(self) -> None:
        """No pass may ask for more pictures than there are: the compiler would stop."""
        limit = self.add.calibset_size if self.add.finetune_size is None else self.add.finetune_size
        if limit is None:
            return
        for command in self.base.commands:
            asked = whole(command.keyword("dataset_size"))
            if asked is not None and asked > limit:
                self._note_changes(command, {"dataset_size": str(limit)})
                self.changed[command.line] = _merged(command, {"dataset_size": str(limit)})
        effective = self.add.level if self.add.level is not None else level(self.base)
        self._finetune(effective, limit)
        self._adaround(effective, limit)

    def _finetune(self, effective: int | None, limit: int) -> None:
        old = finetune(self.base)
        if (old is None and effective != 2) or (old is not None and not old.enabled):
            return
        wanted = {} if old is not None and old.keyword("policy") else {"policy": "enabled"}
        if old is None or old.keyword("dataset_size") is None:
            wanted["dataset_size"] = str(self.add.finetune_size or min(limit, FINETUNE_PICTURES))
        if wanted:
            self._put("post_quantization_optimization", "finetune", wanted)

    def _adaround(self, effective: int | None, limit: int) -> None:
        """AdaRound's dataset_size is known from reports only: it is written only where pictures are too few."""
        old = merged(self.base, "post_quantization_optimization", "adaround")
        if (old is not None and (not old.enabled or old.keyword("dataset_size"))) or (
            old is None and effective not in ADAROUND_PICTURES
        ):
            return
        if limit < ADAROUND_PICTURES.get(effective or 0, max(ADAROUND_PICTURES.values())):
            wanted = {} if old is not None and old.keyword("policy") else {"policy": "enabled"}
            self._put("post_quantization_optimization", "adaround", {**wanted, "dataset_size": str(limit)})

    def _sigmoids(self) -> None:
        done: set[str] = set()
        for command in self.base.named("change_output_activation"):
            done |= set(self._checked_activation(command))
        for layer in () if self.add.logits else self.add.sigmoid_layers:
            self._refuse_forced(layer)
            if layer not in done:
                self.new.append(f"change_output_activation({layer}, sigmoid)")
        if not self.add.sigmoid_layers and not self.add.logits:
            self.new.append("# a line for each class convolution follows when the compiler has named them:")
            self.new.append("# change_output_activation(convNN, sigmoid)")

    def _refuse_forced(self, layer: str) -> None:
        """A class convolution gets a sigmoid, which sets 0..1 itself; the compiler refuses a forced range beside it."""
        for command in self.base.named("quantization_param"):
            if command.keyword("force_range_out") and any(names_layer(n, layer) for n in layers(command.args[0])):
                what = f"forces the range of {layer}, a class convolution, whose sigmoid sets 0..1 by itself"
                raise self._clash(command, what)

    def _checked_activation(self, command: Command) -> Iterator[str]:
        """The class convolutions that already get their sigmoid from a line of the base."""
        written, activation = (*command.args, "", "")[:2]
        if self.add.logits and activation != "linear":
            raise self._clash(command, "adds an activation, but --logits promises raw class tensors")
        if not self.add.sigmoid_layers or (activation == "linear" and self.add.logits):
            return
        for layer in layers(written):
            meant = [s for s in self.add.sigmoid_layers if names_layer(layer, s)]
            if meant and activation != "sigmoid":
                raise self._clash(command, f"gives {activation} to a class convolution, which needs a sigmoid")
            if not meant and activation != "linear":
                known = ", ".join(self.add.sigmoid_layers)
                raise self._clash(
                    command,
                    f"changes the activation of {layer}, but the class convolutions of this network are {known}",
                )
            yield from meant

    def _wide(self) -> None:
        left = [layer for layer in self.add.wide_layers if not self._wide_already(layer)]
        if left:
            self.new.append(f"quantization_param([{', '.join(left)}], precision_mode=a16_w16)")

    def _wide_already(self, layer: str) -> bool:
        modes = [
            (command, mode)
            for command in self.base.named("quantization_param")
            if (mode := command.keyword("precision_mode"))
            and any(names_layer(n, layer) for n in layers(command.args[0]))
        ]
        for command, mode in modes:
            if mode != "a16_w16":
                raise self._clash(command, f"gives {layer} {mode}, but --precision-16 asks for a16_w16")
        return bool(modes)

    def _put(self, name: str, feature: str | None, wanted: Mapping[str, str]) -> None:
        """Merge keywords into the base's lines: into the line that states one, else into the last; or add a line."""
        lines = self.base.named(name, feature)
        if not lines:
            self.new.append(printed(_merged(Command(name, (feature,) if feature else (), ()), wanted)))
            return
        stated = {key for line in lines for key, _ in line.keywords}
        for old in lines:
            here = {k: v for k, v in wanted.items() if old.keyword(k) or (old is lines[-1] and k not in stated)}
            now = _merged(self.changed.get(old.line, old), here)
            if now != old:
                self.changed[old.line] = now

    def _note_changes(self, old: Command | None, wanted: Mapping[str, str]) -> None:
        for key, value in wanted.items():
            before = old.keyword(key) if old is not None else None
            if old is not None and before not in (None, value):
                self._note(old, f"{key}={before} becomes {value}")

    def _note(self, command: Command, what: str) -> None:
        self.notes.append(f"{self.base.source} line {command.line}: {what}")

    def _clash(self, command: Command, what: str) -> ModelError:
        text = " ".join(command.text.split())
        return ModelError(f"{self.base.source} line {command.line}: {text!r} {what}; remove the line")

    def _text(self) -> str:
        lines = self.base.text.splitlines()
        for line in sorted(self.changed, reverse=True):
            old = next(c for c in self.base.commands if c.line == line)
            lines[line - 1 : line + old.text.count("\n")] = [CHANGED, printed(self.changed[line])]
        added = ["", MARK, *self.new] if self.new else []
        return "\n".join(["\n".join(lines).rstrip(), *added]) + "\n"


def _merged(command: Command, wanted: Mapping[str, str]) -> Command:
    keywords = tuple({**dict(command.keywords), **wanted}.items())
    return Command(command.name, command.args, keywords, command.targets, command.line, command.text)
