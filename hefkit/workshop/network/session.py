"""Open and run onnxruntime sessions; no other module does it, so all sessions have the same options."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import onnxruntime as ort

from hefkit.errors import ModelError
from hefkit.text import one_line

MAX_RUN_S = 120  # the largest YOLO needs 10 s on a slow computer

Item = TypeVar("Item")
Result = TypeVar("Result")


def open_session(
    model: onnx.ModelProto | Path, threads: int = 0, *, lean: bool = False, arena: bool = True
) -> ort.InferenceSession:
    """A CPU session; Quantize/Dequantize pairs are computed in float.

    onnxruntime's fused integer kernels saturate on CPUs without VNNI, so the emulator's codes would depend on the
    machine. The option `session.disable_quant_qdq` prevents that; it cannot be stored in a model.

    Args:
        model: a model, or a path to one.
        threads: 0 means all cores this process may use.
        lean: compute node by node in the order of the file, and free every tensor after its last reader: a fifth of
            the memory for a graph with a small output behind every tensor.
        arena: keep the memory of a run for the next one; False where many sessions are open at once.

    Raises:
        ModelError: onnxruntime refuses the model.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = arena
    if lean:
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
        options.enable_mem_pattern = False
        # the layouts of the highest level keep a second copy of tensors that others read as well
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4  # fatal only; errors arrive as exceptions
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    # spinning idle threads would use the core that the next stage of the pipeline needs
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # onnxruntime's exception classes have no public common base
        if type(exc).__module__.startswith("onnxruntime"):
            raise ModelError(f"onnxruntime refuses the model: {one_line(exc)}") from exc
        raise


def available_cores() -> int:
    """CPU cores that this process may use; under taskset or in a container fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_session(
    session: ort.InferenceSession, outputs: Sequence[str], feeds: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """Run once; Ctrl-C and SIGTERM end it.

    Raises:
        ModelError: onnxruntime cannot compute the graph, or needs more than MAX_RUN_S.
    """
    options = ort.RunOptions()
    try:
        if threading.current_thread() is not threading.main_thread():
            return list(session.run(list(outputs), dict(feeds), options))
        # Python handles signals only in the main thread, between its own instructions, so another thread computes
        with ThreadPoolExecutor(1) as pool:
            try:
                return list(pool.submit(session.run, list(outputs), dict(feeds), options).result(MAX_RUN_S))
            except BaseException:
                options.terminate = True  # between two operators
                raise
    except FutureTimeout as exc:
        raise ModelError(
            f"the model needs more than {MAX_RUN_S} s for one picture; expected an exported YOLO; export it again"
        ) from exc
    except Exception as exc:  # no public common base, as above
        if type(exc).__module__.startswith("onnxruntime"):
            raise ModelError(f"onnxruntime cannot run the model; export it again; it says: {one_line(exc)}") from exc
        raise


def in_parallel(act: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`act(item)` of every item, in order, on as many threads as there are cores; items are taken as they are needed.

    Meant for sessions of one thread: one picture on each core is faster than all cores on one picture.
    """
    workers = available_cores()
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(act, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
