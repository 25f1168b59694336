"""Repeat a step of many small GPU operations with one launch: CUDA graphs."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

WARM_UP = 3  # calls before recording, in which libraries choose their algorithms and buffers


class Repeated:
    """Call `step` again and again; on a CUDA device it is recorded once and then replayed.

    The step must change tensors in place, always the same ones, and must not look at their values: a
    replay runs the operations of the recording on the same memory, without Python. On other devices,
    with `record=False`, or where recording fails (said in a warning), every call runs the step itself.
    """

    def __init__(self, step: Callable[[], None], device: torch.device, *, record: bool = True) -> None:
        self._step, self._device = step, device
        self._record = record and device.type == "cuda"
        self._calls = 0
        self._stream: torch.cuda.Stream | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self._record and self._graph is None and self._calls >= WARM_UP:
            self._graph = self._recorded()
        if self._graph is not None:
            self._graph.replay()
        elif self._record:
            self._aside()
        else:
            self._step()
        self._calls += 1

    def _aside(self) -> None:
        """Run the step on a stream of its own, as a recording wants its warm-up to be."""
        if self._stream is None:  # one for all calls: memory is kept for each stream apart
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream, current = self._stream, torch.cuda.current_stream(self._device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            self._step()
        current.wait_stream(stream)

    def _recorded(self) -> torch.cuda.CUDAGraph | None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._step()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            warnings.warn(f"the step could not be recorded as a CUDA graph: {error}", stacklevel=2)
            self._record = False
            return None
        return graph
