"""Protobuf messages as a schema describes them, and what was read of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

VARINT, FIXED64, LENGTH, GROUP, GROUP_END, FIXED32 = range(6)
SCALARS = {"uint32": VARINT, "uint64": VARINT, "bool": VARINT, "float": FIXED32, "double": FIXED64, "string": LENGTH}


class Field(NamedTuple):
    """One field of a message: `kind` is one of SCALARS or the name of a message; enums are uint32."""

    name: str
    kind: str
    many: bool = False
    oneof: str = ""


Schema = Mapping[str, Mapping[int, Field]]  # message -> number -> field


class Message:
    """A parsed message; what the file does not say has proto3's default."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}  # a list where the field is repeated

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def number(self, name: str) -> int:
        """An integer, a bool or an enum; 0 by default."""
        return int(self._values.get(name, 0))

    def real(self, name: str) -> float:
        """A float or double; 0 by default."""
        return float(self._values.get(name, 0.0))

    def text(self, name: str) -> str:
        """A string; empty by default."""
        return str(self._values.get(name, ""))

    def texts(self, name: str) -> list[str]:
        """A repeated string."""
        return list(self._values.get(name, ()))

    def numbers(self, name: str) -> list[float]:
        """A repeated number of any type."""
        return list(self._values.get(name, ()))

    def count(self, name: str) -> int:
        """How many values a repeated field has."""
        return len(self._values.get(name, ()))

    def message(self, name: str) -> Message:
        """A message; an empty one by default."""
        found: Message | None = self._values.get(name)
        return Message() if found is None else found

    def messages(self, name: str) -> list[Message]:
        """A repeated message."""
        return list(self._values.get(name, ()))

    def keep(self, field: Field, values: list) -> None:
        """Add to a repeated field, replace a single one."""
        if field.many:
            self._values.setdefault(field.name, []).extend(values)
        else:
            self._values[field.name] = values[-1]

    def drop(self, name: str) -> None:
        """Forget a field: another one of its oneof was set."""
        self._values.pop(name, None)
