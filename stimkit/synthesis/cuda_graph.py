"""Repeat a step of many small GPU operations with one launch: CUDA graphs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

import torch

WARM_UP = 3  # calls before recording, in which libraries choose their algorithms and buffers


class Repeated:
    """Call `step` again and again; on a CUDA device it is recorded once and then replayed.

    The step must change tensors in place, always the same ones, and must not look at their values: a
    replay runs the operations of the recording on the same memory, without Python. On other devices,
    with `record=False`, or where recording fails (said in a warning), every call runs the step itself.
    """

    _failed = False  # in this process: what cannot be recorded once is not tried for every batch

    def __init__(self, step: Callable[[], None], device: torch.device, *, record: bool = True) -> None:
        self._step, self._device = step, device
        self._record = record and device.type == "cuda" and not Repeated._failed
        self._calls = 0
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
        stream, current = _side_stream(self._device), torch.cuda.current_stream(self._device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            self._step()
        current.wait_stream(stream)

    def _recorded(self) -> torch.cuda.CUDAGraph | None:
        current = torch.cuda.current_stream(self._device)
        graph = torch.cuda.CUDAGraph()
        # A recording has memory of its own: what the warm-up keeps for reuse would be held beside it.
        torch.cuda.empty_cache()
        try:
            # Without these two it would record the current device, and what runs on a stream without buffers yet.
            with torch.cuda.device(self._device), torch.cuda.graph(graph, stream=_side_stream(self._device)):
                self._step()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            warnings.warn(f"the step could not be recorded as a CUDA graph: {error}", stacklevel=2)
            self._record, Repeated._failed = False, True
            return None
        finally:
            torch.cuda.set_stream(current)  # which torch 2.11 does not where a recording cannot be ended
        return graph


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One stream for all warm-ups and recordings of a device: memory and buffers are kept for each stream apart."""
    return torch.cuda.Stream(device)
