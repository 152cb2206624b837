"""The double's `ClientRunner`: parse, optimise, emulate, compile, save."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any, Iterator

import numpy as np
from double_parts import hef as fake_hef
from double_parts.behaviour import act, say, version, wanted
from double_parts.data import samples
from double_parts.hn import HnModel
from double_parts.network import Network
from double_parts.script import Settings, apply
from double_parts.states import allowed_states

from hailo_sdk_client.exposed_definitions import SUPPORTED_HW_ARCHS, CalibrationDataType, InferenceContext, States
from hailo_sdk_client.model_translator.exceptions import MisspellNodeError, ParsingWithRecommendationException
from hailo_sdk_client.sdk_backend.sdk_backend_exceptions import BackendRuntimeException

# sentences of the real SDK
TOO_FEW = "Dataset didn't have enough data for dataset_size of"
LOWERED = "(the accuracy won't be optimized and compression won't be used)"
RECOMMENDED = 1024
REASONS = {
    "gpu": "there's no available GPU",
    "data": "there's less data than the recommended amount (1024)",
    "both": "there's less data than the recommended amount (1024), and there's no available GPU",
}
SIGMOID = (
    "with sigmoid activation was detected. Forcing its output range to be [0, 1] (original range was [0.000, 0.900])."
)
NOT_QUANTIZED = (
    "Model requires quantized weights in order to run on HW, but none were given. Did you forget to quantize?"
)
NOT_NORMALIZED = "The calibration set seems to not be normalized, because the values range is"
NORMALIZED_TWICE = (
    "The expected calibration set should be [0, 255] when using an in-net normalization layer, "
    "but the range received is"
)
PARSED = (States.HAILO_MODEL, States.FP_OPTIMIZED_MODEL, States.QUANTIZED_MODEL, States.COMPILED_MODEL)


class ClientRunner:
    """Parse, optimise, emulate, compile."""

    def __init__(self, hw_arch: Any = None, har: Any = None) -> None:
        if hw_arch is not None and hw_arch not in SUPPORTED_HW_ARCHS:
            raise ValueError(f"Unsupported hw_arch {hw_arch}, expected one of {SUPPORTED_HW_ARCHS}")
        self.hw_arch, self.state, self.hef = hw_arch, States.UNINITIALIZED, None
        self.model_script, self.model_name = "", None
        self._network: Any = None
        self._settings, self._ranges = Settings(), []
        if har is not None:
            self.load_har(har)
        if hw_arch is not None:
            self.hw_arch = hw_arch

    # --- parsing

    def translate_onnx_model(
        self, model: Any, net_name: Any, start_node_names: Any = None, end_node_names: Any = None,
        net_input_shapes: Any = None, augmented_path: Any = None, disable_shape_inference: bool = False,
        disable_rt_metadata_extraction: bool = False, net_input_format: Any = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Translate an ONNX into an HN, the SDK's network."""
        if set(kwargs) - {"disable_onnx_simplifier"}:
            raise TypeError(f"translate_onnx_model() got an unexpected keyword argument '{sorted(kwargs)[0]}'")
        if not isinstance(model, str) or not end_node_names:
            raise TypeError("model must be the path of an ONNX as str, and the double wants end_node_names")
        act("parse")
        say("info", f"Translation started on ONNX model {net_name}")
        try:
            self._network = Network.read(model, net_name, list(end_node_names))
        except LookupError as exc:
            raise MisspellNodeError(f"Unable to find end node names: {exc.args[0]}") from None
        except NotImplementedError as exc:
            lines = [f"Unsupported{k}LayerError in op {n}: {k} operation is unsupported" for k, n in exc.args[0]]
            raise ParsingWithRecommendationException(
                "Parsing failed. The errors found in the graph are:\n " + "\n ".join(lines)
            ) from None
        self.state, self.model_name = States.HAILO_MODEL, net_name
        say("info", f"Restored ONNX model {net_name} (completion time: 00:00:00.05)")
        start = f"'{self._network.input_name}': '{net_name}/input_layer1'"
        say("info", f"Start nodes mapped from original model: {start}.")
        say("info", "End nodes mapped from original model: {}.".format(", ".join(f"'{n}'" for n in end_node_names)))
        say("info", f"Translation completed on ONNX model {net_name} (completion time: 00:00:00.45)")
        return self.get_hn(), self.get_params()

    @allowed_states(*PARSED)
    def get_hn_model(self) -> HnModel:
        """The network as objects."""
        return HnModel(self._network, self._settings.wide)

    @allowed_states(*PARSED)
    def get_hn_dict(self) -> Any:
        """The network as a dict."""
        return self.get_hn_model().to_dict()

    get_hn = get_hn_dict

    @allowed_states(*PARSED)
    def get_params(self) -> Any:
        """Weights; the double has none."""
        return {}

    # --- script and quantisation

    @allowed_states(*PARSED)
    def load_model_script(self, model_script: Any, append: bool = False) -> Any:
        """Load a model script: a path, or the text itself."""
        act("script")
        is_file = isinstance(model_script, Path) or ("\n" not in model_script and os.path.isfile(model_script))
        where = str(model_script) if is_file else "string"
        say("info", f"Loading model script commands to {self.model_name} from {where}")
        text = Path(model_script).read_text(encoding="utf-8") if is_file else model_script
        text = self.model_script + "\n" + text if append else text
        model = self.get_hn_model()
        layers = [layer.name.rsplit("/", 1)[-1] for layer in model.stable_toposort()]
        outputs = [p["name"] for p in model.producers]
        self._settings, self.model_script = apply(text, layers, outputs), text
        return text

    def optimize_full_precision(self, calib_data: Any = None) -> None:
        """Apply what the script changes in floating point."""
        if self.state != States.HAILO_MODEL:
            raise RuntimeError(f"optimize_full_precision is for a parsed model, not for {self.state}")
        act("full_precision")
        if calib_data is not None:
            next(iter(self._samples(calib_data)))
        self.state = States.FP_OPTIMIZED_MODEL

    @allowed_states(States.HAILO_MODEL, States.FP_OPTIMIZED_MODEL)
    def optimize(
        self,
        calib_data: Any,
        data_type: Any = CalibrationDataType.auto,
        *,
        work_dir: Any = None,
        checkpoint: Any = None,
        memento: Any = None,
    ) -> None:
        """Quantise."""
        images = []
        for image in self._samples(calib_data):
            images.append(image)
        say("info", "Starting Model Optimization")
        if len(images) < self._settings.calibset_size:
            raise ValueError(
                f"calibset_size {self._settings.calibset_size} is larger than the dataset, {len(images)} entries"
            )
        act("optimize")
        level = self._level(len(images))
        used = images[: wanted("fewer", self._settings.calibset_size)]
        say("info", "Starting Statistics Collector")
        say("info", f"Using dataset with {len(used)} entries for calibration")
        if wanted("refuses_late"):
            raise ValueError("calib dataset of dtype float32: something failed after hours")
        if wanted("pictures_look") == "normalized":
            say("info", f"{NOT_NORMALIZED} [0.000, 1.000]")
        if wanted("pictures_look") == "twice":
            say("warning", f"{NORMALIZED_TWICE} [0.000, 0.004]")
        for layer in wanted("fewer_bits", []):
            say("warning", f"Reducing output bits of {self.model_name}/{layer} by 5 bits (More than half)")
        if wanted("snr") is not None:
            say("info", f"\t{self.model_name}/output_layer1 SNR:\t{wanted('snr')} dB")
        n = len(used)
        sys.stderr.write(f"Calibration:   0%|          | 0/{n}\rCalibration: 100%|####| {n}/{n}\n")
        self._ranges = self._measure(used)
        say("info", "Model Optimization Algorithm Statistics Collector is done (completion time is 00:00:01.00)")
        for name in self._settings.sigmoid:
            say("info", f"Output layer {self.model_name}/{name} {SIGMOID}")
        for layer in wanted("four_bit", []):
            say("info", f"Assigning 4bit weights to layer {self.model_name}/{layer}")
        self._passes(level, len(images))
        say("info", "Model Optimization is done")
        self.state = States.QUANTIZED_MODEL

    def _level(self, images: int) -> Any:
        """An implicit level depends on graphics card and pictures; an explicit one is lowered only on request."""
        level, lowered = self._settings.level, wanted("reduce_level")
        if level is None and lowered is None:
            card = os.environ.get("CUDA_VISIBLE_DEVICES") not in ("99", "", "-1")
            if card and images >= RECOMMENDED:
                say("info", "Using default optimization level of 2")
                return 2
            lowered = [1, "data"] if card else [0, "gpu" if images >= RECOMMENDED else "both"]
        if lowered is None:
            return level
        to, why = lowered
        detail = f" {LOWERED}" if to == 0 else " (the accuracy won't be optimized)"
        say("warning", f"Reducing optimization level to {to}{detail} because {REASONS[why]}")
        return to

    def _passes(self, level: Any, images: int) -> None:
        say("info", "Bias Correction skipped")
        pictures = self._settings.adaround or {3: 256, 4: 1024}.get(level)
        if pictures:
            self._enough("adaround", pictures, images)
            say("info", "Starting Adaround")
            say("info", "Model Optimization Algorithm Adaround is done (completion time is 00:01:00.00)")
        else:
            say("info", "Adaround skipped")
        pictures = self._settings.finetune or (RECOMMENDED if level == 2 else None)
        if pictures and not wanted("skip_finetune"):
            entries = min(self._enough("finetune", pictures, images), wanted("fewer", images))
            say("info", "Starting Quantization-Aware Fine-Tuning")
            say("info", f"Using dataset with {entries} entries for finetune")
            print("Epoch 1/4")
            say(
                "info",
                "Model Optimization Algorithm Quantization-Aware Fine-Tuning is done (completion time is 00:09:16.74)",
            )
        else:
            say("info", "Quantization-Aware Fine-Tuning skipped")
        say("info", "Layer Noise Analysis skipped")

    def _enough(self, name: str, pictures: int, images: int) -> int:
        """Too few pictures for a pass: an error in reports, a warning in a newer log; the behaviour file chooses."""
        if pictures > images and not wanted("few_pictures_will_do"):
            raise ValueError(f"{name}: dataset_size {pictures} is larger than the dataset, {images} entries")
        if pictures > images:
            say("warning", f"Quantization-Aware Fine-Tuning: {TOO_FEW} {pictures}")
        return min(pictures, images)

    # --- emulation

    @contextlib.contextmanager
    def infer_context(
        self,
        inference_context: Any,
        device_ids: Any = None,
        nms_score_threshold: Any = None,
        custom_infer_config: Any = None,
    ) -> Iterator[Any]:
        """A context for `infer`."""
        if not isinstance(inference_context, InferenceContext):
            raise TypeError("expected an InferenceContext")
        ready = {
            InferenceContext.SDK_NATIVE: PARSED,
            InferenceContext.SDK_FP_OPTIMIZED: PARSED[1:],
            InferenceContext.SDK_QUANTIZED: PARSED[2:],
        }[inference_context]
        if self.state not in ready:
            raise RuntimeError(f"infer_context {inference_context} is not available in state {self.state}")
        yield inference_context

    def infer(
        self, context: Any, dataset: Any, data_type: Any = None, data_count: Any = None, batch_size: int = 1
    ) -> Any:
        """Emulate; float32 arrays (N, H, W, C), a list unless there is one output."""
        act("infer")
        if not isinstance(context, InferenceContext):
            raise TypeError("infer wants what infer_context gave")
        baked, codes = self._baked(), None
        if context == InferenceContext.SDK_QUANTIZED:
            codes = [self._codes(k) for k in range(len(baked))]
        rows = [self._emulate(image, baked, codes) for image in self._samples(dataset, [])]
        found = [np.stack([row[k] for row in rows]).astype(np.float32) for k in range(len(rows[0]))]
        names = [layer.name for layer in self.get_hn_model().get_output_layers()]
        if wanted("reverse_outputs"):
            found.reverse()
        if wanted("reverse_emulation"):
            found.reverse()
        if wanted("dict_emulation"):
            return dict(zip(names, found))
        return found[0] if len(found) == 1 else found

    def _samples(self, data: Any, refused: Any = None) -> Iterator[np.ndarray]:
        refused = wanted("refuse_forms", []) if refused is None else refused
        return samples(data, f"{self.model_name}/input_layer1", self._network.input_shape, refused)

    def _heads(self, image: np.ndarray) -> list[np.ndarray]:
        """Raw logits in the order of the end nodes."""
        normal = (image - np.float32(self._settings.mean)) / np.float32(self._settings.std)
        if wanted("wrong_colours"):
            normal = 1 - normal[..., ::-1]
        return self._network.run(normal.astype(np.float32))

    def _baked(self) -> list[bool]:
        return [p["name"] in self._settings.sigmoid for p in self.get_hn_model().producers]

    def _measure(self, images: list[np.ndarray]) -> list[list[float]]:
        """[low, high] of each output; zero is inside."""
        low = [0.0] * len(self._network.end_nodes)
        high = [1e-3] * len(low)
        for image in images:
            for k, tensor in enumerate(self._heads(image)):
                low[k], high[k] = min(low[k], float(tensor.min())), max(high[k], float(tensor.max()))
        return [[0.0, 1.0] if baked else [low[k], high[k]] for k, baked in enumerate(self._baked())]

    def _codes(self, k: int) -> tuple[float, float, int]:
        """(scale, zero point, largest code) of output k."""
        model = self.get_hn_model()
        name = model.output_name(k)
        wide = name in self._settings.wide or model.producers[k]["name"] in self._settings.wide
        largest = 32767 if wide else 255  # 16 bit are 15
        low, high = self._ranges[k]
        scale = (high - low) / largest
        return scale, float(round(-low / scale)), largest

    def _emulate(self, image: np.ndarray, baked: list[bool], codes: Any) -> list[np.ndarray]:
        """The outputs of one picture; `codes`: `_codes` of each output, or None in full precision."""
        found = []
        for k, (tensor, sigmoid) in enumerate(zip(self._heads(image), baked)):
            if sigmoid and not wanted("raw_emulation"):
                tensor = 1 / (1 + np.exp(-tensor.astype(np.float64)))
            if codes is not None and not (sigmoid and wanted("raw_emulation")):
                scale, zero, largest = codes[k]
                tensor = (np.clip(np.rint(tensor / scale) + zero, 0, largest) - zero) * scale
                if wanted("collapse") and k % 2 == 0:
                    tensor = np.zeros_like(tensor)
            found.append(tensor)
        return found

    # --- compilation

    def compile(self) -> Any:
        """The bytes of a HEF that says that it is fake."""
        if self.state not in (States.QUANTIZED_MODEL, States.COMPILED_MODEL):
            text = NOT_QUANTIZED
            say("error", "Failed to compile the model: " + text)
            raise BackendRuntimeException(text)
        say("info", 'To achieve optimal performance, set the compiler_optimization_level to "max"')
        act("compile")
        say("info", "Trying to compile the network in a single context")
        contexts = wanted("contexts", 3)
        if contexts > 1:
            say("info", "Single context flow failed: Recoverable single context error")
            say("info", "Using Multi-context flow")
            say("info", f"Applying selected partition to {contexts} contexts...")
        say("info", "Successful Mapping (allocation time: 7m 55s)")
        say("error", "Error has occured during the layer latency calculation")  # harmless
        say("info", "Building HEF...")
        wrong = wanted("hef", {})
        data = fake_hef.build(
            self.model_name, wrong.get("arch", self.hw_arch), version(),
            self._network.input_shape[:2], self._hef_outputs(wrong), contexts,
        )  # fmt: skip
        say("info", "Successful Compilation (compilation time: 10s)")
        self.state, self.hef = States.COMPILED_MODEL, data
        if wrong.get("broken"):
            data = data[:-50]
        return "model.hef" if wanted("compile_returns") == "path" else data

    def _hef_outputs(self, wrong: dict[str, Any]) -> list[dict[str, Any]]:
        outputs = []
        for k, producer in enumerate(self.get_hn_model().producers):
            scale, zero, largest = self._codes(k)
            size = 2 if largest > 255 else 1
            if size == 2 and wrong.get("demote"):
                size = 1
            if wrong.get("stale"):
                zero = 18000.0
            if wrong.get("logits") and k % 2:
                scale, zero = 0.1, 200.0
            outputs.append(
                {
                    "name": "{}/{}".format(self.model_name, producer["name"] + wrong.get("name", "")),
                    "shape": self._network.shapes[k],
                    "bytes": size,
                    "scale": scale,
                    "zero_point": zero,
                    "original_names": [] if wanted("no_original_names") else producer["original_names"],
                }
            )
        return outputs[: -1 if wrong.get("drop") else None]

    # --- archives

    @allowed_states(*PARSED)
    def save_har(self, har_path: Any, compressed: bool = False, save_original_model: bool = False) -> Any:
        """A tar of the network, its parameters and its script."""
        net = self._network
        params = io.BytesIO()
        np.savez(
            params,
            onnx=np.frombuffer(net.blob, np.uint8),
            recorded=np.frombuffer(net.recorded, np.uint8),
            ranges=np.asarray(self._ranges, np.float64),
        )
        facts = {
            "state": str(self.state), "hw_arch": self.hw_arch, "sdk_version": version(),
            "model_name": self.model_name, "end_nodes": net.end_nodes, "network": net.facts(),
        }  # fmt: skip
        files = {
            ".hn": json.dumps(self.get_hn_dict()).encode(),
            ".npz": params.getvalue(),
            ".metadata.json": json.dumps(facts).encode(),
            ".alls": self.model_script.encode(),
        }
        with tarfile.open(str(har_path), "w") as archive:
            for suffix, data in files.items():
                member = tarfile.TarInfo(self.model_name + suffix)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        say("info", f"Saved HAR to: {os.path.abspath(str(har_path))}")

    def load_har(self, har: Any = None) -> None:
        """Read an archive."""
        with tarfile.open(str(har)) as archive:
            members = {os.path.splitext(m.name)[1]: m for m in archive.getmembers()}
            read = {suffix: archive.extractfile(member).read() for suffix, member in members.items()}  # type: ignore
        facts = json.loads(read[".json"])
        with np.load(io.BytesIO(read[".npz"])) as params:
            blob, recorded = params["onnx"].tobytes(), params["recorded"].tobytes()
            self._ranges = params["ranges"].tolist()
        self._network = Network(blob, recorded, facts["model_name"], facts["end_nodes"], facts["network"])
        self.state, self.model_name = States(facts["state"]), facts["model_name"]
        self.hw_arch = self.hw_arch or facts["hw_arch"]
        if read[".alls"].strip():
            self.load_model_script(read[".alls"].decode() + "\n")
            self.state = States(facts["state"])


if wanted("no_full_precision"):
    del ClientRunner.optimize_full_precision
