"""What the SDK says when it fails, word for word from published logs, and what hefkit makes of it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from hefkit.errors import ToolchainError
from hefkit.workshop.dfc.failures import explain, explain_death, is_known, unwrapped
from hefkit.workshop.dfc.known import FAILURES

LOG = Path("runs/compile/best/sdk.log")
FIT = (
    "NegativeSlopeExponentNonFixable: Quantization failed in layer net/conv50 due to unsupported required slope. "
    "Desired shift is 8.0, but op has only 8 data bits. This error raises when the data range is not balanced."
)
GPU = (
    "AccelerasResourceError: GPU memory has been exhausted. Please try to use Quantization-Aware Fine-Tuning with "
    "lower batch size or run on CPU."
)
UNQUANTIZED = "Model requires quantized weights in order to run on HW, but none were given. Did you forget to quantize?"

# name: (what the SDK says, words of the sentence, words of the cure)
SAID = {
    "unsupported node": (
        "ParsingWithRecommendationException: Parsing failed. The errors found in the graph are:\n"
        " UnsupportedShuffleLayerError in op /model.23/Reshape: Failed to determine type of layer",
        "UnsupportedShuffleLayerError at the node /model.23/Reshape", "opset=11",
    ),
    "unsupported network": (
        "ParsingWithRecommendationException: Parsing failed. The errors found in the graph are:",
        "cannot translate the network", "--end-nodes",
    ),
    "1-D concat": ("UnsupportedModelError: 1D concat", "cannot translate the network", "export it again"),
    "misspelt end node": ("MisspellNodeError: Unable to find end node names: ['x']", "end nodes", "opset"),
    "NaN weights": (
        "BackendValueError: Unsupported NaN values were found in params", "hold NaN", "export it again"
    ),
    "NMS on a wrong cut": (
        "AllocatorScriptParserException: expected conv but found concat layer", "nms_postprocess", "remove"
    ),
    "NMS without its boxes": (
        "AllocatorScriptParserException: Cannot infer bbox conv layers automatically", "nms_postprocess",
        "remove",
    ),
    "script syntax": (
        "BackendScriptParserException: Parsing failed at:\n>!<normalization([0,0,0],[255,255,255])",
        ">!<normalization([0,0,0],[255,255,255])", "name = command",
    ),
    "unknown feature": (
        "BackendScriptParserException: 'bias_correction' is not a valid MOConfigCommand. Model script parsing failed",
        "does not know: bias_correction", "correct that line",
    ),
    "precision not allowed": (
        "ValueError: Unsupported value [<PrecisionMode.a16_w16>] for fields ['precision_mode']",
        "refuses a value in the model script: <PrecisionMode.a16_w16>", "a8_w8",
    ),
    "unknown key": ("AllocatorScriptParserException: foo is not a valid key", "refuses the model", ""),
    "calibration shape": (
        "BadInputsShape: Data shape (3, 640, 640) for layer net/input_layer1 doesn't match network's input shape "
        "(640, 640, 3)", "another shape", "--imgsz",
    ),
    "unfixable range": (FIT, "cannot be quantised", "photographs of the camera"),
    "average pooling": (
        "AccelerasNumerizationError: Shift delta in net/avgpool1/avgpool_op is larger than 2",
        "average pooling does not fit", "global_avgpool_reduction",
    ),
    "graphics memory": (GPU, "graphics card's memory is full", "--batch-size 2"),
    "broken cuDNN": ("InternalError: No DNN in stream executor", "cuDNN", "CUDA_VISIBLE_DEVICES=99"),
    "not quantised": (f"BackendRuntimeException: {UNQUANTIZED}", "is not quantised", "--har"),
    "mapping": (
        "BackendAllocatorException: Compilation failed: No successful assignments: conv7 errors: Agent infeasible",
        "cannot place the network on the chip", "compiler_optimization_level=max",
    ),
    "partition": (
        "Exception: Compiler could not find a valid partition to contexts. Most commom error is: Automri finished with "
        "too many resources on context_2", "cannot place the network on the chip", "context_switch_param(mode=allowed)",
    ),
    "16 bit with 4 bit": ("Exception: 16x4 is not supported", "16-bit layer", "--precision-16 outputs"),
    "16-bit biases": ("Exception: 16bit L2 biases in conv5", "16-bit layer", "bias_correction"),
    "frame rate": (
        "Exception: Failed to reach required FPS on the following layers: conv3", "too large", "fps"
    ),
    "attention": (
        "Exception: More than one output is not supported for layer matmul1", "matmul1", "10H"
    ),
    "compiler crash": (
        "BackendAllocatorException: Compilation failed with unexpected crash", "crashed", "another"
    ),
    "compiler assertion": ("Exception: network_graph_appender.cpp:121 assert", "crashed", "--imgsz"),
    "more pictures than there are": (
        "ValueError: calibset_size 1024 is larger than the dataset, 64", "more pictures", "lower"
    ),
    "unknown argument": (
        "TypeError: optimize() got an unexpected keyword argument 'batch_size'",
        "the argument batch_size of optimize", "--check",
    ),
    "old system": (
        "ImportError: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.29' not found", "GLIBC_2.29",
        "Ubuntu 22.04",
    ),
    "broken environment": (
        "ModuleNotFoundError: No module named 'tensorflow'", "No module named 'tensorflow'",
        "wheel again",
    ),
    "disk full": ("OSError: [Errno 28] No space left on device", "disk became full", "free some space"),
    "host memory": ("MemoryError: Unable to allocate 4.69 GiB", "memory is full", "--num-samples"),
    "allocation": ("RuntimeError: std::bad_alloc", "memory is full", "--batch-size 1"),
    "a feature of another command": (
        "BackendScriptParserException: 'weight_clipping' is not a valid PreQuantizationFeature", "weight_clipping",
        "correct that line",
    ),
    "a feature of another command, after it": (
        "BackendScriptParserException: 'finetunes' is not a valid PostQuantizationFeature", "finetunes", "correct",
    ),
    "16 bit with 4 bit, in newer words": (
        "BackendAllocatorException: 16x4 not supported in conv3", "biases that level 0 leaves", "bias_correction",
    ),
    "tools without a network": (
        "HailoToolsException: Couldn't launch Hailo tool securely", "needs TCP connections", "127.0.0.1",
    ),
    "mapping out of time": (
        "BackendAllocatorException: Compilation failed: Mapping Failed (Timeout, allocation time: 25m 1s)",
        "ran out of its own time", "splitter_timeout",
    ),
    "resources beside effort": (
        "BackendAllocatorException: Compilation failed: Performance Flow requires automatic resource utilization",
        "compiler_optimization_level=max", "remove resources_param",
    ),
    "groups of weights": (
        "Exception: net/conv3 does not support quantization_groups. Expected 1, but got 4.", "several groups", "remove",
    ),
    "compiler assertion, another": (
        "Exception: racehorse.cpp:88: Assertion `is_valid' failed.", "crashed", "another SDK release",
    ),
    "protobuf of another age": (
        "AttributeError: 'MessageFactory' object has no attribute 'GetPrototype'", "another age", "protobuf 3.20.3",
    ),
    "numpy of another age": ("AttributeError: _ARRAY_API not found", "another age", "numpy 1.26.4"),
    "libdevice": ("InternalError: libdevice not found at ./libdevice.10.bc", "libdevice", "XLA_FLAGS"),
    "buffers": (
        "BackendAllocatorException: Compilation failed: no buffers key for conv5", "not a lack of space", "layout",
    ),
    "a HAR for another chip": (
        "ValueError: hw_arch from HAR is hailo8 but client runner was initialized with hailo8l",
        "the HAR is for hailo8, and the run for hailo8l", "--hw-arch",
    ),
    "a library of the tools": (
        "Exception: /v/hailo_tools/tool: error while loading shared libraries: libortools.so.9: cannot open",
        "does not find the library libortools.so.9", "LD_LIBRARY_PATH",
    ),
    "an SDK in dist-packages": (
        "TypeError: expected str, bytes or os.PathLike object, not NoneType", "its own compiler", "site-packages",
    ),
    "no permission": (
        "PermissionError: [Errno 13] Permission denied: 'acceleras.log'", "is not allowed to write", "--run-dir"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_one_sentence_and_its_cure(name: str) -> None:
    """The kind of failure, its cure, what the SDK was doing and where the log is: in one line."""
    said, what, cure = SAID[name]
    found = explain(said, doing="quantising", log=LOG)

    assert found.exit_code == (3 if name == "disk full" else 5)
    text = str(found)
    assert "\n" not in text and what in text and cure in text
    assert "(quantising)" in text and text.endswith(f"log: {LOG}")


def test_every_row_is_reached() -> None:
    """No row of the table stands behind another that takes its words."""
    reached = set()
    for said, *_ in SAID.values():
        reached.add(next(i for i, row in enumerate(FAILURES) if row.match(said)))

    assert reached == set(range(len(FAILURES)))


def test_what_is_normal_is_no_failure() -> None:
    """Lines that every healthy log has."""
    for line in (
        "[info] Single context flow failed: Recoverable single context error",
        "[info] Using Multi-context flow",
        "[warning] GPU memory has been exhausted. Layer Noise Analysis will not generate statistics.",
        "[error] Error has occured during the layer latency calculation",
        "Executor start aborting (this does not indicate an error and you can ignore this message)",
        "E0000 cuda_dnn.cc:8310] Unable to register cuDNN factory",
    ):
        assert not is_known(line), line


def test_the_exception_counts_before_the_log() -> None:
    """What the log mumbled earlier does not explain an exception that explains itself."""
    log = "[error] Mapping Failed (allocation time: 1m 44s)"

    found = explain(FIT, error_lines=log, doing="compiling", log=LOG)
    from_log = explain("Exception: Compilation failed", error_lines=log, doing="compiling", log=LOG)

    assert "cannot be quantised" in str(found) and "cannot place" in str(from_log)


HARMLESS = {
    "TensorFlow looks for TensorRT": "[error] ImportError: libnvinfer.so.8: cannot open shared object file",
    "somebody's exit status": "[error] helper ended with exit code -9",
    "a graph in a file that is not there": "[error] PermissionError: [Errno 13] /usr/share/graphviz",
    "sizes that are told": "[error] dataset_size 1024 is more than 64",
}


@pytest.mark.parametrize("line", HARMLESS.values(), ids=HARMLESS.keys())
def test_noise_of_the_log_explains_nothing(line: str) -> None:
    """Words that healthy logs have as well count only where the exception itself says them."""
    text = str(explain("KeyError: 'meta'", error_lines=line, doing="compiling", log=LOG))
    dead = str(explain_death(1, doing="compiling", log=LOG, last_lines=[line], oom=False))

    assert "it said: KeyError: 'meta'" in text and "crashed while compiling" in dead


CHILD = """\
Subprocess failed with traceback

Traceback (most recent call last):
  File "/v/hailo_model_optimization/tools/subprocess_wrapper.py", line 73, in child_wrapper
    func(self, *args, **kwargs)
  File "/v/hailo_model_optimization/flows/optimization_flow.py", line 239, in step1
    self.core_quantization(calib_data, dataset_size=more_than_enough)  # 16x4 is not supported
"""
# name: (last line of the child's traceback, what is left of it)
WRAPPED = {
    "with its module": (
        "hailo_model_optimization.acceleras.utils.acceleras_exceptions.BadInputsShape: Data shape (3, 640, 640)",
        ("BadInputsShape", "Data shape (3, 640, 640)"),
    ),
    "without a message": ("KeyError", ("KeyError", "")),
    "of several lines": ("a.b.SomeError: one:\n  two\nthree: four\n", ("SomeError", "one:\n  two\nthree: four")),
    "raised while another was handled": (
        "ValueError: first\n\nDuring handling of the above exception, another exception occurred:\n\n"
        'Traceback (most recent call last):\n  File "x", line 1\n    y\nMemoryError: last',
        ("MemoryError", "last"),
    ),
}


@pytest.mark.parametrize("end, left", WRAPPED.values(), ids=WRAPPED.keys())
def test_a_failure_of_a_child_process_is_unwrapped(end: str, left: tuple[str, str]) -> None:
    """The last exception counts; the source lines above it hold words of other rows of the table."""
    assert is_known(f"SubprocessTracebackFailure: {CHILD}"), "or unwrapping would prove nothing"

    assert unwrapped("SubprocessTracebackFailure", CHILD + end) == left


def test_only_wrapped_failures_are_unwrapped() -> None:
    """A traceback in another message, or a wrapper that was cut off, stays as it is."""
    for kind, message in (("RuntimeError", CHILD[34:] + "KeyError: 1"), ("SubprocessTracebackFailure", CHILD)):
        assert unwrapped(kind, message) == (kind, message)


def test_rows_for_the_exception_alone_match_inside_the_wrapper() -> None:
    """`^MemoryError` is at the beginning only when the wrapper is gone."""
    kind, message = unwrapped("SubprocessTracebackFailure", CHILD + "MemoryError: Unable to allocate 4.69 GiB")

    assert "the memory is full" in str(explain(f"{kind}: {message}", doing="quantising", log=LOG))


def test_unknown_words_are_kept() -> None:
    """Nothing is guessed: the end of the SDK's own text, where the reason is, bounded and printable, and the log."""
    found = explain("KeyError: " + "x" * 999 + "\x1b[31m'meta'", doing="compiling", log=LOG)

    assert type(found) is ToolchainError
    text = str(found)
    assert "failed while compiling" in text and "KeyError: ...xxx" in text and "'meta'; " in text and str(LOG) in text
    assert text.isprintable() and len(text) < 500


DEATHS = {
    "out of memory, as the kernel says": (-9, [], True, ": the kernel ended it because the memory was full", "16 GiB"),
    "killed, nobody says why": (
        -9,
        [],
        False,
        "most likely the kernel ended it because the memory was full",
        "--batch-size 1",
    ),
    "a helper was killed": (1, ["whatever"], True, "the kernel ended it", "16 GiB"),
    "no AVX": (-signal.SIGILL, [], False, "illegal instruction", "AVX"),
    "crash": (-signal.SIGSEGV, ["Fatal Python error: Segmentation fault"], False, "SIGSEGV", "another SDK release"),
    "exit": (3, ["bye"], False, "exit status 3; its last lines: bye", "run again"),
    "full disk in its last words": (1, ["OSError: [Errno 28] No space left on device"], False, "disk became full", ""),
}


@pytest.mark.parametrize("code, last, oom, what, cure", DEATHS.values(), ids=DEATHS.keys())
def test_a_worker_that_is_gone(code: int, last: list[str], oom: bool, what: str, cure: str) -> None:
    """From its exit status, its last words, and what the kernel counts."""
    text = str(explain_death(code, doing="quantising", log=LOG, last_lines=last, oom=oom))

    assert what in text and cure in text and str(LOG) in text and "\n" not in text
