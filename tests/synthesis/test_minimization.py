"""One evaluation as a recording: no look at values, the same memory, the same result when replayed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from stimkit.network.vgg import VGG
from stimkit.synthesis.adam import Adam
from stimkit.synthesis.lbfgs import LBFGS
from stimkit.synthesis.minimization import STOP_REASONS, Minimization
from stimkit.synthesis.optimizers import MAX_REJECTIONS, OptimizerRows
from stimkit.synthesis.synthesis import loss_units, measure, synthesize_batch
from tests.bench import Bench

SETTINGS: list[dict[str, Any]] = [
    {"window": 3}, {"window": 1, "rtol": 0.0}, {"optimizer": "adam"}, {"preconditioner": "none", "history": 2},
    {"output": {"equalize_luminance": "content", "equalize_contrast": 0.4, "equalize_weight": 0.3}},
]  # fmt: skip
FURTHER = [{"precision": "bfloat16"}, {"regions": "grid"}, {"regions": "polar"}, {"colour": "grey"}]
LIMIT = 9

# What a CUDA graph cannot hold: values read by the host, sizes that depend on values, copies from host memory.
FORBIDDEN = {
    "aten._local_scalar_dense.default", "aten.nonzero.default", "aten.masked_select.default", "aten.item.default",
    "aten.lift_fresh.default", "aten.equal.default", "aten.unique_dim.default",
}  # fmt: skip


class Watch(TorchDispatchMode):
    """Collects the names of the operations that are run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


def minimization(
    *, output: dict[str, Any] | None = None, look_every: int | None = None, **synthesis: Any
) -> Minimization:
    batch = Bench(synthesis={"max_evaluations": LIMIT, **synthesis}, output=output or {}).batch()
    units = loss_units(measure(batch.reference, batch.objective, batch.initial))
    return Minimization(batch, units, look_every=look_every)


def tensors(found: object) -> dict[str, torch.Tensor]:
    """The state of a minimization and its optimizer, by name."""
    state: dict[str, torch.Tensor] = {}
    for name, value in vars(found).items():
        if isinstance(value, torch.Tensor):
            state[name] = value
        elif isinstance(value, LBFGS | Adam | OptimizerRows):
            state |= {f"{name}.{inner}": tensor for inner, tensor in tensors(value).items()}
    return state


def test_the_state_is_that_of_the_optimizer_too() -> None:
    assert {"counts", "_optimizer._rows.pairs", "_optimizer._slot"} <= tensors(minimization()).keys()


@pytest.mark.parametrize("settings", [*SETTINGS, *FURTHER], ids=str)
def test_an_evaluation_works_in_place_and_without_the_host(settings: dict[str, Any]) -> None:
    one = minimization(**settings)
    one.evaluate()
    before = {name: (id(value), value.data_ptr()) for name, value in tensors(one).items()}
    with Watch() as watch:
        one.evaluate()
    assert not watch.names & FORBIDDEN
    assert {name: (id(value), value.data_ptr()) for name, value in tensors(one).items()} == before


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.alternating
def test_replaying_one_recorded_evaluation_is_the_same_as_running_it(settings: dict[str, Any]) -> None:
    """A recording of torch operations, as a CUDA graph is one: what Python decided then stays decided."""
    run, replayed = minimization(**settings), minimization(**settings)

    def evaluate(_: torch.Tensor) -> torch.Tensor:
        replayed.evaluate()
        return _

    recording = make_fx(evaluate, tracing_mode="real")(torch.zeros(()))  # runs the first evaluation
    for _ in range(LIMIT - 1):
        recording(torch.zeros(()))
    for _ in range(LIMIT):
        run.evaluate()
    expected = tensors(run)
    for name, value in tensors(replayed).items():
        assert torch.equal(value, expected[name]), name
    assert int(run.evaluation) == LIMIT and int(run.counts.min()) == LIMIT


class Troubled:
    """A network that does what `trouble` says to its feature maps, by the number of the evaluation."""

    def __init__(self, network: Any, trouble: Callable[[int], float]) -> None:
        self._network, self._trouble, self._count = network, trouble, 0

    def features(self, images: torch.Tensor, layers: Any) -> dict[str, torch.Tensor]:
        self._count += 1
        factor = self._trouble(self._count)
        return {name: factor * one for name, one in self._network.features(images, layers).items()}


@pytest.mark.parametrize(
    ("trouble", "reason", "rollbacks"),
    [
        (lambda number: 1 + number if number > 20 else 1, "stalled", 0),
        (lambda number: math.nan if number == 3 else 1 + number if number > 20 else 1, "stalled", 1),
        (lambda number: math.nan if number > 20 else 1, "non_finite", MAX_REJECTIONS),
    ],
)
def test_what_stopped_a_cell_that_found_no_step(trouble: Callable[[int], float], reason: str, rollbacks: int) -> None:
    """A single evaluation that was not finite, long ago, is not why no step lowers the loss."""
    batch = Bench(synthesis={"max_evaluations": 60, "rtol": 0.0}).batch()
    result = synthesize_batch(replace(batch, network=cast(VGG, Troubled(batch.network, trouble))))[0]
    assert (result.stop_reason, result.rollbacks) == (reason, rollbacks)
    assert result.optimized.total < 0.5 * result.initial.total


def test_a_stop_rule_that_is_never_met_ends_at_the_last_evaluation() -> None:
    one = minimization(rtol=0.0, target_style=1e-30)
    one.run()
    assert [STOP_REASONS[code] for code in one.reasons.tolist()] == ["max_evaluations"] * len(one.reasons)
    assert one.evaluations.tolist() == [LIMIT] * len(one.reasons)


def test_looking_less_often_changes_no_result() -> None:
    """On a GPU the host looks at the stop rules every 10 evaluations only."""
    often, rarely = (minimization(rtol=0.05, window=2, max_evaluations=23, look_every=every) for every in (1, 10))
    often.run()
    rarely.run()
    assert often.evaluations.tolist() == rarely.evaluations.tolist()
    assert len(set(often.evaluations.tolist())) > 1
    assert often.reasons.tolist() == rarely.reasons.tolist()
    assert torch.allclose(often.images, rarely.images, rtol=0, atol=1e-3)
    for row in range(len(often.images)):
        assert often.trace(row).shape == rarely.trace(row).shape
