"""A HEF as an inspection shows it, read without HailoRT, by the standard library alone.

    hef = read_hef(Path("yolov8n.hef"))
    hef.arch                        # "hailo8"
    hef.groups[0].outputs[0].shape  # (80, 80, 64)

A field that is read here is refused where HailoRT 4.23 refuses it; unknown fields are skipped. One thing
differs: an otherwise readable file with a wrong digest is read, and `digest_ok` is False. Container versions 2 and 3
have an XXH3 digest; without the optional package xxhash it is not checked, and `digest_ok` is None. The chip's
instructions, its weights and the connections between its own layers are not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hefkit.chips import CHIP_OF_NUMBER, CHIPS
from hefkit.errors import ModelError
from hefkit.hef.container import Container, digest_fits, read_container
from hefkit.hef.groups import Features, Group, read_groups
from hefkit.hef.schema import SCHEMA
from hefkit.hef.wire import Message, Reader
from hefkit.text import one_line

# ProtoHEFExtensionType: those that HailoRT 4.23 has; it refuses the others. HailoRT 5.1 and newer, which drive the 10H
# and the 15, have three more: checksums of the weights, configuration channels, strict versions
SUPPORTED_EXTENSIONS = {*range(7), *range(9, 33)}
EXTENSIONS_5 = {33, 34, 35}
NET_FLOW, SCALE_PER_FEATURE, PERIPH_IN_HAILORT = 13, 25, 26
MULTI_NETWORK = 8  # an optional extension; HailoRT refuses none of these


@dataclass(frozen=True)
class Hef:
    """What a HEF says about itself."""

    path: Path
    arch: str  # "hailo8", "hailo8l", "hailo10h" ...
    sdk: str | None  # version of the compiler
    container_version: int
    digest_ok: bool | None  # None: not checked, the package xxhash is missing
    groups: tuple[Group, ...]  # the default one first
    resources: tuple[str, ...] = ()  # names of files inside, such as the tokenizer of a language model

    def to_json(self) -> dict[str, Any]:
        """The inspection of the contract."""
        return {
            "file": str(self.path),
            "arch": self.arch,
            "sdk": self.sdk,
            "container_version": self.container_version,
            "digest_ok": self.digest_ok,
            "groups": [group.to_json() for group in self.groups],
            "external_resources": list(self.resources),
        }


def read_hef(path: Path) -> Hef:
    """Read a HEF without its weights, in a few hundred kilobytes of memory.

    Raises:
        ModelError: the file is missing, cannot be read, is not a HEF, is damaged, or is too old or too new.
    """
    try:
        with open(path, "rb") as file:
            return _read(path, file)
    except OSError as exc:
        raise ModelError(f"cannot read {path}: {exc.strerror}; expected a HEF") from exc


def _read(path: Path, file: BinaryIO) -> Hef:
    try:
        container = read_container(file)
    except ModelError as exc:
        raise ModelError(f"{path} cannot be used: {exc}") from exc
    try:
        message = Reader(file, SCHEMA).parse("Hef", *container.proto_span)
        arch = _arch(message)
        features = _features(message, arch)
        groups = read_groups(message, arch, features)
    except ModelError as exc:
        raise _refusal(path, file, container, exc) from exc
    sdk = message.message("header").text("sdk_version") or None
    resources = tuple(resource.text("name") for resource in message.messages("external_resources"))
    return Hef(path, arch, sdk, container.version, digest_fits(file, container), groups, resources)


def _refusal(path: Path, file: BinaryIO, container: Container, exc: ModelError) -> ModelError:
    """A file that was damaged by a copy needs other advice than one that was compiled wrong."""
    fits = digest_fits(file, container)
    if fits is False:
        return ModelError(
            f"{path} is damaged: its checksum does not fit, and {one_line(exc)}; copy or download it again"
        )
    cure = "compile it again, or update HailoRT and hefkit"
    if fits is None:
        cure = f"copy or download it again; if it stays, {cure}"
    return ModelError(f"{path} cannot be used: {one_line(exc)}; {cure}")


def _arch(message: Message) -> str:
    number = message.message("header").number("hw_arch")
    if number not in CHIP_OF_NUMBER:
        raise ModelError(f"it is for an unknown chip, number {number}")
    return CHIP_OF_NUMBER[number].name


def _features(message: Message, arch: str) -> Features:
    """What the extensions say; files that are older than extensions do not run on HailoRT 4.23."""
    extensions = {e.number("type_index"): e.text("name") for e in message.messages("extensions")}
    newer = CHIPS[arch].line == 5
    supported = SUPPORTED_EXTENSIONS | EXTENSIONS_5 if newer else SUPPORTED_EXTENSIONS
    unknown = sorted(index for index in extensions if index not in supported)
    if unknown:
        names = ", ".join(extensions[index] or f"number {index}" for index in unknown[:5])
        raise ModelError(f"it needs extensions that HailoRT {'5.2' if newer else '4.23'} does not have: {names}")
    if not message.message("header").number("version") or PERIPH_IN_HAILORT not in extensions:
        raise ModelError("it is outdated: HailoRT 4.23 does not run files without 'periph_calculation_in_hailort'")
    optional = {e.number("type_index") for e in message.messages("optional_extensions")}
    return Features(
        net_flow=NET_FLOW in extensions,
        per_feature=SCALE_PER_FEATURE in extensions,
        multi_network=MULTI_NETWORK in optional,
    )
