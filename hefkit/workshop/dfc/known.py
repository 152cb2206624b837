"""The known failures of Hailo's SDK, one a row: a pattern of its words, one sentence, and the cure.

The patterns are from published logs and tracebacks; docs/sdk-assumptions.md describes them. A row for a special case
comes before a row whose pattern fits the same words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hefkit.errors import DataError, HefkitError, ToolchainError


@dataclass(frozen=True)
class Failure:
    """A row of the table; the first row whose pattern is found counts."""

    pattern: str
    what: str  # `{0}`, `{1}` ...: groups of the pattern
    cure: str
    error: type[HefkitError] = ToolchainError
    # searched in the exception only: harmless lines of the log have these words too (TensorFlow prints ImportErrors)
    strict: bool = False

    def match(self, text: str) -> re.Match[str] | None:
        """The place in the SDK's words where the row's pattern is found."""
        return re.search(self.pattern, text, re.IGNORECASE)


MAPPING_CURE = (
    "expected a network that fits the chip; add performance_param(compiler_optimization_level=max) or "
    "context_switch_param(mode=allowed) to the script, use fewer 16-bit layers, a smaller --imgsz or a smaller model"
)
CUT_CURE = (
    "expected an export that ends in a YOLO head; export it again with opset=11, simplified and without NMS, or name "
    "the end nodes with --end-nodes"
)
MEMORY_CURE = "expected 16 GiB or more; close other programs, use fewer pictures (--num-samples) and --batch-size 1"
SCRIPT_CURE = "correct that line of the script"

FAILURES = (
    Failure(
        r"No space left on device|\[?Errno 28|Disk quota exceeded",
        "the disk became full",
        "expected some GiB; free some space or choose another --run-dir, and run again",
        DataError,
    ),
    Failure(
        r"expected conv but found [\w|.]+|Cannot infer bbox conv layers|Post-process config file"
        r"|NMSConfigPostprocess",
        "the script's nms_postprocess does not fit the raw heads that hefkit cuts out",
        "expected a script without it; remove that line, NMS is done after the chip",
    ),
    Failure(
        r"Parsing failed at:\s*(.{0,200})",
        "the SDK cannot read the model script at: {0}",
        f"expected command(...) or name = command(...); {SCRIPT_CURE}",
    ),
    Failure(
        r"'?([\w.]+)'? is not a valid (?:MOConfigCommand|PreQuantizationFeature|PostQuantizationFeature)",
        "the model script names a feature that this command or this SDK does not know: {0}",
        SCRIPT_CURE,
    ),
    Failure(
        r"Unsupported value \[?(.{0,80}?)\]? for fields? \[?'?(\w+)|Unsupported value \[(.{0,80}?)\]",
        "the SDK refuses a value in the model script: {0}{2}",
        "expected one that this layer supports, such as a8_w8 or, for convolutions, a16_w16; " + SCRIPT_CURE,
    ),
    Failure(
        r"does not support quantization_groups",
        "a layer cannot have its weights in several groups",
        "remove quantization_groups of that layer from the script",
    ),
    Failure(
        r"Performance Flow requires automatic resource utilization",
        "the script sets both compiler_optimization_level=max and the use of resources",
        "expected one of them; remove resources_param from the script",
    ),
    Failure(
        r"buffers key",
        "the SDK's compiler failed on the buffers of a layer, which is not a lack of space on the chip",
        "remove lines of layout (buffers, context, place ...) from the script, or try another SDK release",
    ),
    Failure(
        r"BackendScriptParserException|AllocatorScriptParserException|Model script parsing failed|is not a valid key",
        "the SDK refuses the model script",
        SCRIPT_CURE,
    ),
    Failure(
        r"MisspellNodeError",
        "the SDK does not find the end nodes",
        "expected names of nodes in the ONNX; leave --end-nodes out, or export again with opset=11",
    ),
    Failure(
        r"(Unsupported\w*Error|UnexpectedNodeError) in op (\S+?):",
        "the SDK cannot translate the network: {0} at the node {1}",
        CUT_CURE,
    ),
    Failure(
        r"Parsing failed\. The errors found|ParsingWithRecommendation|UnsupportedModelError|Unsupported\w+LayerError"
        r"|UnsupportedOperationError|UnexpectedNodeError",
        "the SDK cannot translate the network",
        CUT_CURE,
    ),
    Failure(
        r"Unsupported NaN values",
        "the network's weights hold NaN",
        "expected finite numbers; train it or export it again",
    ),
    Failure(
        r"BadInputsShape|Data shape \(.*?\) for layer .* doesn't match",
        "the SDK expects calibration pictures of another shape",
        "expected (N, height, width, 3) of the network's own size; make the set again with its --imgsz",
    ),
    Failure(
        r"NegativeSlopeExponentNonFixable|Desired shift is [\d.]+, but op has only",
        "a layer's range cannot be quantised",
        "expected photographs of the camera that will be used, and the normalization line in the script; make the set "
        "again from such photographs, or add pre_quantization_optimization(activation_clipping, ...) for that layer",
    ),
    Failure(
        r"Shift delta in (\S*avgpool\S*)|AccelerasNumerizationError",
        "a large average pooling does not fit the chip's numbers {0}",
        "add pre_quantization_optimization(global_avgpool_reduction, layers=..., division_factors=[4, 4]) to the "
        "script",
    ),
    Failure(
        # the same words from the noise analysis are harmless
        r"AccelerasResourceError|GPU memory has been exhausted(?!\. Layer Noise Analysis)|OOM when allocating tensor",
        "the graphics card's memory is full",
        "use --batch-size 2, and post_quantization_optimization(finetune, policy=enabled, batch_size=2) in the script; "
        "or set CUDA_VISIBLE_DEVICES=99 to compute on the processor",
    ),
    Failure(
        r"No DNN in stream executor|CUDNN_STATUS_NOT_INITIALIZED",
        "TensorFlow sees the graphics card and cannot use it: cuDNN is broken or missing",
        "install the cuDNN that the SDK's TensorFlow needs, or set CUDA_VISIBLE_DEVICES=99 to compute on the processor",
    ),
    Failure(
        r"bad_alloc|Cannot allocate memory",
        "the memory is full",
        MEMORY_CURE,
    ),
    Failure(
        r"^MemoryError|^ResourceExhausted",
        "the memory is full",
        MEMORY_CURE,
        strict=True,
    ),
    Failure(
        r"Model requires quantized weights",
        "the network to compile is not quantised",
        "expected a HAR that was saved after quantisation; give --har the parsed one, or leave --har out",
    ),
    Failure(
        r"16x4 (?:is )?not supported|16bit L2 biases",
        "the chip cannot compute a 16-bit layer as the script asks, or the 16-bit biases that level 0 leaves",
        "add post_quantization_optimization(bias_correction, policy=enabled) to the script, which shortens biases, "
        "and use --precision-16 outputs in place of single layers",
    ),
    Failure(
        r"More than one output is not supported for layer (matmul\w*)",
        "the chip cannot compute {0}, a matrix product of the network's attention",
        "expected a model without it; choose another model, or a Hailo-10H",
    ),
    Failure(
        r"Compilation failed with unexpected crash|(?:network_graph_appender|racehorse)\.cpp"
        r"|Assertion [`'\w].{0,200}failed",
        "the SDK's compiler crashed on this network",
        "try another --imgsz, another model size, or another SDK release",
    ),
    Failure(
        r"Failed to reach required FPS",
        "the network is too large for the frame rate that the script asks for",
        "lower fps in performance_param, or use a smaller model",
    ),
    Failure(
        r"Mapping Failed \(Timeout",
        "the SDK's search for a place on the chip ran out of its own time",
        "add allocator_param(timeout=5h, splitter_timeout=1h) to the script; smaller models need less time",
    ),
    Failure(
        r"Mapping Failed|No successful assignments|Agent infeasible|No valid partition found"
        r"|valid partition to contexts|BackendAllocatorException|precision mode is not accurate",
        "the SDK cannot place the network on the chip",
        MAPPING_CURE,
    ),
    Failure(
        r"(?:calibset_size|dataset_size)\b.{0,80}(?:larger|bigger|exceed|more than|less|enough)",
        "the script asks for more pictures than the calibration set has",
        "expected at most the number of pictures; lower calibset_size and dataset_size in the script",
        strict=True,
    ),
    Failure(
        r"(\w+)\(\) got an unexpected keyword argument '?(\w+)",
        "this version of the SDK does not know the argument {1} of {0}",
        "run compile_to_hef.py with --check, which prints how this SDK's calls differ from what hefkit expects",
        strict=True,
    ),
    Failure(
        r"version `?(GLIBC\w*[\d.]+)'? not found",
        "the operating system is too old for the SDK: it has no {0}",
        "expected Ubuntu 22.04 or 24.04; compile there",
    ),
    Failure(
        r"hw_arch from HAR is (\w+) but client runner was initialized with (\w+)",
        "the HAR is for {0}, and the run for {1}",
        "expected the same chip; leave --har out, or change --hw-arch",
    ),
    Failure(
        r"error while loading shared libraries: ([\w.+-]+)",
        "a program of the SDK does not find the library {0}",
        "put the folder that has it into LD_LIBRARY_PATH; for Google's or-tools that is "
        "lib/python3.x/site-packages/hailo_tools/or-tools/dependencies/install/lib in the SDK's environment",
    ),
    Failure(
        r"Couldn't launch Hailo tool securely",
        "the SDK cannot talk to its own tools: it needs TCP connections to this machine itself",
        "expected a loopback network (127.0.0.1); switch it on in the container or sandbox, or run outside of it",
    ),
    Failure(
        r"libdevice not found|libdevice\.10\.bc",
        "TensorFlow does not find CUDA's libdevice",
        "set XLA_FLAGS=--xla_gpu_cuda_data_dir=FOLDER to the CUDA folder that has nvvm/libdevice, or set "
        "CUDA_VISIBLE_DEVICES=99 to compute on the processor",
    ),
    Failure(
        r"expected str, bytes or os\.PathLike object, not NoneType",
        "the SDK does not find its own compiler, which it looks for below a site-packages only",
        "expected the SDK in a virtual environment, not in dist-packages; python3 -m venv hailo, and install the wheel "
        "there",
        strict=True,
    ),
    Failure(
        r"GetPrototype|_ARRAY_API|numpy\.core\.multiarray failed to import|compiled using NumPy 1\.x",
        "the SDK's environment has a protobuf or a numpy of another age",
        "expected the versions that the wheel asks for, such as numpy 1.26.4 and protobuf 3.20.3; install the wheel in "
        "an environment of its own",
        strict=True,
    ),
    Failure(
        r"(?:ModuleNotFound|Import)Error: (.{0,160})",
        "the SDK is installed but cannot be imported: {0}",
        "expected a complete environment; install the SDK's wheel again, in its own environment",
        strict=True,
    ),
    Failure(
        r"PermissionError: (.{0,160})",
        "the SDK is not allowed to write: {0}",
        "expected a run folder that you may write to; choose another --run-dir",
        strict=True,
    ),
)
