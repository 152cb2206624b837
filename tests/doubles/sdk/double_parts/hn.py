"""The HN model: the objects that `get_hn_model` returns, and the dict of `get_hn_dict`."""

from __future__ import annotations

import functools
import types
from typing import Any

from double_parts.behaviour import wanted
from double_parts.network import Network


class Layer:
    """One layer."""

    def __init__(self, net: str, record: dict[str, Any], shape: Any, inputs: list[str], precision: str) -> None:
        self.name, self.scope = "{}/{}".format(net, record["name"]), net
        self.op, self.activation = record["type"], record.get("activation", "linear")
        self.inputs = inputs
        self.output_shape = shape
        self.output_features = shape[-1] if shape else None
        self.original_names = record["original_names"]
        self.precision_config = types.SimpleNamespace(precision_mode=precision)


class HnModel:
    """A parsed network."""

    def __init__(self, network: Network, wide: list[str]) -> None:
        self._network, self._wide = network, wide
        self._order = list(range(len(network.end_nodes)))
        if wanted("reverse_outputs"):
            self._order.reverse()

    @functools.cached_property
    def producers(self) -> list[dict[str, Any]]:
        """The layer that makes each end node, in the order of the end nodes."""
        nodes = self._network.nodes
        return [next(n for n in nodes if end in n["original_names"]) for end in self._network.end_nodes]

    def output_name(self, k: int) -> str:
        """The name, without the network's, of the output layer of end node k."""
        return f"output_layer{self._order.index(k) + 1}"

    def get_output_layers(self, remove_non_neural_core_layers: bool = False) -> list[Layer]:
        """output_layer1 ..., in the order of the end nodes."""
        net = self._network
        found = []
        for k, i in enumerate(self._order):
            record = {"name": f"output_layer{k + 1}", "type": "output_layer", "original_names": [net.end_nodes[i]]}
            producer = "{}/{}".format(net.net, self.producers[i]["name"])
            found.append(Layer(net.net, record, [-1, *net.shapes[i]], [producer], self._mode(record["name"])))
        return found

    def get_input_layers(self) -> list[Layer]:
        """input_layer1."""
        net = self._network
        record = {"name": "input_layer1", "type": "input_layer", "original_names": [net.input_name]}
        return [Layer(net.net, record, [-1, *net.input_shape], [], "a8_w8")]

    def get_input_shapes(self, ignore_conversion: bool = True) -> list[list[int]]:
        """[-1, H, W, C] of the inputs."""
        return [[-1, *self._network.input_shape]]

    def stable_toposort(self) -> list[Layer]:
        """All layers."""
        net = self._network
        inner = [Layer(net.net, n, None, [], self._mode(n["name"])) for n in net.nodes]
        return [*self.get_input_layers(), *inner, *self.get_output_layers()]

    def get_layer_by_name(self, name: str) -> Layer:
        """A layer by its scoped name."""
        return next(layer for layer in self.stable_toposort() if layer.name == name)

    def to_dict(self) -> dict[str, Any]:
        """`get_hn_dict`."""
        net, shapes = self._network, {}
        for i, producer in enumerate(self.producers):
            shapes[producer["name"]] = [-1, *net.shapes[i]]
        layers: dict[str, Any] = {}
        for layer in self.stable_toposort():
            bare = layer.name.rsplit("/", 1)[-1]
            names = [] if wanted("no_original_names") else list(layer.original_names)
            entry = {"type": layer.op, "input": layer.inputs, "output": [], "original_names": names}
            shape = layer.output_shape or shapes.get(bare)
            if shape:
                entry["output_shapes"] = [shape]
            if layer.op == "input_layer":
                entry["input_shapes"] = [shape]
            layers[layer.name] = entry
        order = [layer.name for layer in self.get_output_layers()]
        return {"name": net.net, "net_params": {"version": "1.0", "output_layers_order": order}, "layers": layers}

    def _mode(self, bare: str) -> str:
        return "a16_w16" if bare in self._wide else "a8_w8"
