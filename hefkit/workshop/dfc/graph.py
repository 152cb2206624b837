"""The network as the SDK has parsed it: names of its layers, and whether it has the heads that we asked for.

A layer's name (`net/conv41`) depends on the graph and on the SDK's version, so we never guess it: every name in the
script comes from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hefkit.errors import ToolchainError
from hefkit.text import one_line
from hefkit.workshop.heads.discover import HeadConv, HeadLayout


@dataclass(frozen=True)
class Output:
    """One output of the parsed network."""

    name: str  # "net/output_layer1"
    producer: str  # "net/conv41": the convolution, and the stream in the HEF
    shape: tuple[int, int, int] | None  # (H, W, C)
    original_names: tuple[str, ...]  # ONNX nodes that became the producer


@dataclass(frozen=True)
class ParsedGraph:
    """The worker's description of the parsed network; outputs in the SDK's order."""

    input_shapes: tuple[tuple[int, int, int] | None, ...]
    outputs: tuple[Output, ...]
    layers: Mapping[str, tuple[str, ...]]  # scoped name -> names of its ONNX nodes

    @staticmethod
    def from_event(event: Mapping[str, Any]) -> ParsedGraph:
        """From the worker's answer to `parse` or `open`."""
        return ParsedGraph(
            input_shapes=tuple(_hwc(item.get("shape")) for item in event.get("inputs", [])),
            outputs=tuple(
                Output(str(o["name"]), str(o["producer"]), _hwc(o.get("shape")), tuple(o.get("original_names", [])))
                for o in event.get("outputs", [])
            ),
            layers={str(k): tuple(v.get("original_names", [])) for k, v in event.get("layers", {}).items()},
        )

    def matched(self, layout: HeadLayout, size: tuple[int, int]) -> tuple[Output, ...]:
        """The outputs of our heads, in the order of the spec: box, cls, by stride.

        They are matched by the ONNX names that the SDK keeps; without these, by the order that we asked for. The
        shapes must be those of the heads in both cases.

        Raises:
            ToolchainError: the outputs are not those that we asked for.
        """
        if list(self.input_shapes) not in ([(*size, 3)], [None]):
            raise ToolchainError(_wrong_network(f"its input is {list(self.input_shapes)}, expected [{(*size, 3)}]"))
        if len(self.outputs) != len(layout.convs):
            raise ToolchainError(_wrong_network(f"it has {len(self.outputs)} outputs, expected {len(layout.convs)}"))
        found = self._by_original_name(layout.convs) or self.outputs
        for conv, output in zip(layout.convs, found, strict=True):
            if output.shape not in (conv.shape, None):
                raise ToolchainError(
                    _wrong_network(
                        f"{one_line(output.producer, 80)} is {output.shape} where the {conv.role} head at stride "
                        f"{conv.stride} is {conv.shape}"
                    )
                )
        return tuple(found)

    def _by_original_name(self, convs: Sequence[HeadConv]) -> list[Output] | None:
        """One output for each convolution, or None where a name is missing or there twice."""
        found = []
        for conv in convs:
            named = [output for output in self.outputs if conv.node_name in output.original_names]
            if len(named) != 1:
                return None
            found.append(named[0])
        return found

    def resolve(self, layer: str) -> str | None:
        """The SDK's name, without the network's, of a layer that a user names: `conv41`, `net/conv41` or an ONNX node.

        None where no layer, or more than one, has that name.
        """
        bare = [name for name in self.layers if layer in (name, name.rpartition("/")[2])]
        from_node = [name for name, nodes in self.layers.items() if layer in nodes]
        for names in (bare, [n for n in from_node if "output_layer" not in n]):
            if len(names) == 1:
                return names[0].rpartition("/")[2]
        return None


def _wrong_network(what: str) -> str:
    return (
        f"Hailo's SDK parsed another network than hefkit asked for: {what}; expected the heads that hefkit found; "
        "export the model again with opset=11, or try another SDK release"
    )


def _hwc(shape: Any) -> tuple[int, int, int] | None:
    """[-1, H, W, C] or [1, H, W, C] -> (H, W, C)."""
    if not isinstance(shape, list) or len(shape) not in (3, 4):
        return None
    height, width, channels = shape[-3:]
    return int(height), int(width), int(channels)
