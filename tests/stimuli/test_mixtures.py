"""What lies between images: targets of mixtures, equal distances, and runs with series."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import torch

import stimkit
from stimkit.auditing.remeasurement import Remeasurement
from stimkit.auditing.rules import find_reversals
from stimkit.images.light import Array, luminance, to_linear, to_srgb
from stimkit.images.pixels import quantize, resize, to_float
from stimkit.network.losses import gram_matrix
from stimkit.planning.cells import Cell, Plan
from stimkit.planning.inputs import PlanInputs
from stimkit.protocol.protocol import Protocol
from stimkit.records.record import Execution, lost_record
from stimkit.runfolder.run import Run
from stimkit.stimuli.assembly import Assembly, build_objective
from stimkit.stimuli.finishing import Finishings
from stimkit.stimuli.mixtures import Moments, Series, cross_term
from stimkit.stimuli.preparation import picture, prepare_initial
from stimkit.stimuli.targets import TargetCache
from tests.conftest import document, forge, small_plan

STYLES = {"cup": "skimage:coffee", "grass": "skimage:grass", "brick": "skimage:brick"}
CONTENTS = {"cat": "skimage:chelsea", "moon": "skimage:moon"}
CPU = torch.device("cpu")


def random_moments(seed: int, *, filters: int = 6, positions: int = 40) -> Moments:
    return Moments.of(torch.randn(filters, positions, 1, generator=torch.Generator().manual_seed(seed)).double() + 0.5)


def covariance(moments: Moments) -> Array:
    return np.asarray(moments.gram - np.outer(moments.mean, moments.mean))


def on_geodesic(first: Moments, second: Moments, t: float) -> Array:
    """Gram matrix / M of a geodesic, multiplied out."""
    return (1 - t) ** 2 * first.gram + t**2 * second.gram + t * (1 - t) * cross_term(first, second)


# --- geodesics -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.2, 0.5, 0.9])
def test_a_geodesic_is_the_one_of_the_textbooks(t: float) -> None:
    """McCann's interpolation: T = S₁⁻¹ (S₁ Σ₂ S₁)^½ S₁⁻¹, Σ_t = ((1 − t) I + t T) Σ₁ ((1 − t) I + t T)."""
    first, second = random_moments(1), random_moments(2)
    one, other = covariance(first), covariance(second)
    root = scipy.linalg.sqrtm(one)
    inverse = np.linalg.inv(root)
    transport = inverse @ scipy.linalg.sqrtm(root @ other @ root) @ inverse
    step = (1 - t) * np.eye(6) + t * transport
    mean = (1 - t) * first.mean + t * second.mean
    assert on_geodesic(first, second, t) == pytest.approx(step @ one @ step + np.outer(mean, mean), rel=1e-9)


def test_a_geodesic_has_constant_speed() -> None:
    """The distance of Bures and Wasserstein grows in proportion to t."""

    def distance(one: Array, other: Array) -> float:
        root = scipy.linalg.sqrtm(one)
        return float(np.sqrt(np.trace(one + other - 2 * np.real(scipy.linalg.sqrtm(root @ other @ root)))))

    first, second = (replace(one, mean=one.mean * 0, gram=covariance(one)) for one in map(random_moments, (3, 4)))
    whole = distance(first.gram, second.gram)
    for t in (0.25, 0.5, 0.75):
        assert distance(first.gram, on_geodesic(first, second, t)) == pytest.approx(t * whole, rel=1e-6)


def test_a_geodesic_needs_no_inverse() -> None:
    """Of fewer positions than filters, covariances are singular: targets stay Gram matrices, either way round."""
    first, second = (random_moments(seed, filters=12, positions=5) for seed in (5, 6))
    for t in np.linspace(0, 1, 5):
        found = on_geodesic(first, second, t)
        assert np.linalg.eigvalsh(found).min() > -1e-12
        assert found == pytest.approx(on_geodesic(second, first, 1 - t), rel=1e-9, abs=1e-12)
    apart = Moments.of(torch.tensor([[1.0, -1.0], [0.0, 0.0]]).view(2, 2, 1).double())
    other = Moments.of(torch.tensor([[0.0, 0.0], [1.0, -1.0]]).view(2, 2, 1).double())
    assert on_geodesic(apart, other, 0.5) == pytest.approx(np.diag([0.25, 0.25])), "what is not coupled is independent"


def test_features_of_one_filter_are_normal_distributions() -> None:
    """Mean and standard deviation go in straight lines."""
    first, second = (random_moments(seed, filters=1) for seed in (7, 8))
    mean = 0.7 * first.mean + 0.3 * second.mean
    deviation = 0.7 * np.sqrt(covariance(first)) + 0.3 * np.sqrt(covariance(second))
    assert on_geodesic(first, second, 0.3)[0, 0] == pytest.approx(float(mean[0] ** 2 + deviation[0, 0] ** 2))


# --- equal distances -------------------------------------------------------------------------------------------


def series_of(count: int, *, closed: bool, geodesic: bool) -> Series:
    moments = [random_moments(seed) for seed in range(count)]
    nodes = [{"a": one.gram, "b": 3 * one.gram} for one in moments]
    pairs = [*pairwise(moments), *([(moments[-1], moments[0])] if closed else [])]
    crosses = [{"a": cross_term(*pair), "b": 3 * cross_term(*pair)} for pair in pairs] if geodesic else []
    return Series.through(nodes, crosses, {"a": 0.5, "b": 2.0}, closed=closed)


@pytest.mark.parametrize("geodesic", [False, True])
@pytest.mark.parametrize(("count", "closed", "steps"), [(2, False, 5), (3, False, 8), (4, True, 7)])
def test_neighbours_are_equally_distant(count: int, closed: bool, steps: int, geodesic: bool) -> None:
    found = series_of(count, closed=closed, geodesic=geodesic)
    places = found.places(steps)
    assert len(places) == steps and places[0] == 0 and places == sorted(places)
    around = [*places, float(found.segments)] if closed else places
    distances = [found.distance(*pair) for pair in pairwise(around)]
    assert around[-1] == found.segments and distances == pytest.approx([distances[0]] * len(distances), rel=1e-4)


def test_distances_are_style_losses() -> None:
    moments = [random_moments(seed) for seed in range(2)]
    found = Series.through([{"a": one.gram} for one in moments], [], {"a": 0.5}, closed=False)
    assert found.distance(0, 1) == pytest.approx(np.sqrt(0.5 * np.mean((moments[0].gram - moments[1].gram) ** 2)))
    assert found.places(3) == pytest.approx([0, 0.5, 1])


# --- targets ---------------------------------------------------------------------------------------------------


def mixed_plan(mixes: Any, **sections: Any) -> Plan:
    images = {"style": STYLES, "mixes": mixes, **sections.pop("images", {})}
    factors = {"style_layers": ["two"], "ratio": [1e-5], **sections.pop("factors", {})}
    return small_plan(images=images, factors=factors, **sections)


def cell_of(plan: Plan, style: str) -> Cell:
    return next(cell for cell in plan.cells if cell.style == style)


def test_the_gradient_is_that_of_the_weighted_sum_of_losses() -> None:
    mixes = {"sm": {"of": ["cup", "grass"], "steps": 5}}
    plan = mixed_plan(mixes, factors={"style": ["sm"], "ratio": [0]}, synthesis={"precision": "float64"})
    source = PlanInputs(plan)
    assembly = Assembly(source, CPU)
    batch = assembly.batch([cell_of(plan, "sm-2")])
    targets = TargetCache(batch.reference, source)
    images = batch.initial.clone().requires_grad_()

    def gradient(style: str) -> torch.Tensor:
        objective = build_objective([cell_of(plan, style)], targets, source, CPU)
        losses = objective.losses(batch.reference.features(images, objective.layers))
        return torch.autograd.grad(objective.total(losses).sum(), images)[0]

    assert torch.allclose(gradient("sm-2"), 0.75 * gradient("cup") + 0.25 * gradient("grass"), rtol=1e-9, atol=1e-12)


def test_the_target_of_a_geodesic_is_the_formula_over_features() -> None:
    mixes = {"geo": {"of": ["cup", "grass"], "steps": 3, "path": "geodesic"}}
    plan = mixed_plan(mixes, factors={"style": ["geo"]}, synthesis={"precision": "float64"})
    batch = Assembly(PlanInputs(plan), CPU).batch([cell_of(plan, "geo-2")])
    cache = TargetCache(batch.reference, PlanInputs(plan))
    moments = []
    for name in ("cup", "grass"):
        image = cache.image(picture(cell_of(plan, name), "style", PlanInputs(plan)))
        moments.append(Moments.of(batch.reference.features(image[None], ["conv1_1"])["conv1_1"][0]))
    expected = on_geodesic(moments[0], moments[1], 0.5)
    assert batch.objective.style_targets["conv1_1"][0].numpy() == pytest.approx(expected, rel=1e-8, abs=1e-12)


def test_content_is_mixed_in_feature_maps_and_pictures_in_light() -> None:
    images = {"content": CONTENTS, "content_mixes": {"cm": {"of": ["cat", "moon"], "steps": 5}}}
    plan = small_plan(images=images, factors={"style_layers": ["one"], "ratio": [1e-5], "content": ["cm"]})
    cells = {cell.content: cell for cell in plan.cells}
    batch = Assembly(PlanInputs(plan), CPU).batch([cells[name] for name in ("cat", "cm-2", "moon")])
    cat, mixed, moon = batch.objective.content_targets["conv2_1"]
    assert torch.allclose(mixed, 0.75 * cat + 0.25 * moon, rtol=1e-5, atol=1e-6)
    source = PlanInputs(plan)
    one, other = (to_linear(to_float(resize(source.image("content", name), (32, 32), "crop"))) for name in CONTENTS)
    expected = quantize(to_srgb(0.75 * one + 0.25 * other).astype(np.float32))
    assert (picture(cells["cm-2"], "content", source) == expected).all()
    from_image = cells["cm-2"].settings.model_copy(update={"init": "content"})
    initial = prepare_initial(replace(cells["cm-2"], settings=from_image), source)
    assert initial == pytest.approx(to_float(expected))


def test_light_of_a_mixture_is_the_weighted_mean_of_light() -> None:
    plan = mixed_plan(
        {"sm": {"of": ["cup", "grass"], "steps": 5}},
        factors={"style": ["sm"]},
        output={"equalize_luminance": "style", "equalize_histogram": "none"},
    )
    finishings = Finishings(PlanInputs(plan))
    cup, mixed, grass = (finishings.of(cell_of(plan, name)).target.luminance for name in ("cup", "sm-2", "grass"))
    assert cup and grass and mixed == pytest.approx(0.75 * cup + 0.25 * grass) and abs(cup - grass) > 0.002


def test_ends_are_the_cells_of_their_images() -> None:
    """The same id, seed and so pixels as in a protocol that knows no mixes."""
    alone = {(cell.id, cell.seed) for cell in mixed_plan({}, factors={"style": ["cup", "grass"]}).cells}
    plan = mixed_plan({"sm": {"of": ["cup", "grass"], "steps": 4, "path": "geodesic", "spacing": "distance"}})
    assert alone < {(cell.id, cell.seed) for cell in plan.cells}


def test_weights_and_path_are_part_of_the_identity() -> None:
    pair = {"of": ["cup", "grass"], "steps": 5}
    same = {"of": ["grass", "cup"], "steps": 9}
    ids = [
        cell_of(mixed_plan({"sm": mix}, factors={"style": [level]}), level).id
        for mix, level in (
            (pair, "sm-2"), (same, "sm-7"), (pair, "sm-3"), ({**pair, "path": "geodesic"}, "sm-2"),
            ({**pair, "path": "geodesic", "spacing": "distance"}, "sm-2"), ({**pair, "of": ["cup", "brick"]}, "sm-2"),
        )
    ]  # fmt: skip
    assert ids[0] == ids[1] and len(set(ids)) == 5


def test_controls_of_mixtures() -> None:
    images = {"content": CONTENTS, "content_mixes": {"cm": {"of": ["cat", "moon"], "steps": 3}}}
    controls = {"texture": True, "own_texture": True, "untouched": True}
    mixes = {"sm": {"of": ["cup", "grass"], "steps": 3}}
    plan = mixed_plan(mixes, images=images, factors={"content": ["cm-2"], "style": ["sm-2"]}, controls=controls)
    made = {cell.role: cell for cell in plan.cells}
    assert made["own_texture"].images("style") == ("cat(content)", "moon(content)")
    assert made["texture"].style_mix == made["main"].style_mix and made["texture"].content_mix is None
    assert made["untouched"].content_mix == made["main"].content_mix and made["untouched"].style_mix is None
    assert made["texture"].compared == (("style", "cup"), ("style", "grass"))
    assert made["untouched"].compared == (("content", "cat"), ("content", "moon"))
    assert made["own_texture"].compared == ()


def test_a_wheel_of_many_scenes_is_planned() -> None:
    wheel = {"of": ["cup", "grass", "brick"], "steps": 72, "closed": True, "path": "geodesic"}
    plan = mixed_plan({"wheel": wheel}, factors={"style": ["wheel"], "replicate": 72})
    assert len(plan.cells) == 72 * 72 and len(plan.inputs) == 4


# --- runs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def series_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two series of styles, one of them by distance, crossed with one of contents."""
    images = {"content": CONTENTS, "content_mixes": {"cm": {"of": ["cat", "moon"], "steps": 3}}}
    mixes = {
        "sm": {"of": ["cup", "grass"], "steps": 3},
        "geo": {"of": ["cup", "grass", "brick"], "steps": 4, "path": "geodesic", "spacing": "distance"},
    }
    plan = mixed_plan(mixes, images=images, factors={"content": ["cat", "cm-2"], "style": ["sm", "geo-2", "geo-3"]})
    folder = tmp_path_factory.mktemp("runs") / "series"
    stimkit.run(plan, folder, device="cpu", keep_inputs=True)
    return stimkit.open_run(folder)


def test_runs_with_series_are_sound_and_made_again(series_run: Run, tmp_path: Path) -> None:
    assert stimkit.verify(series_run.path).findings == ()
    found = stimkit.audit(series_run.path, device="cpu")
    assert not [one for one in found.findings if one.severity == "error"], found.findings
    made = stimkit.regenerate(series_run.path, tmp_path / "again", device="cpu")
    assert {one.tier for one in made} == {"identical_file"}


def test_positions_weights_and_distances_are_in_the_tables(series_run: Run) -> None:
    table = pd.read_csv(series_run.path / "manifest.csv").query("content == 'cat'").set_index("style")
    assert table["sm"].dropna().to_dict() == {"cup": 0, "sm-2": 0.5, "grass": 1}
    assert table.loc["sm-2", "style_mix"] == "cup=0.5;grass=0.5" and table.loc["sm-2", "style_path"] == "linear"
    parts = dict(part.split("=") for part in str(table.loc["geo-2", "style_mix"]).split(";"))
    assert sum(map(float, parts.values())) == pytest.approx(1) and table.loc["geo-2", "style_path"] == "geodesic"
    cup = table.loc["cup"].to_dict()
    assert cup["style_distance_cup"] == pytest.approx(cup["loss_style_file"], rel=1e-5)
    manifest = series_run.dataset
    assert manifest["style_distance"].dims == ("stimulus", "style_image", "style_layer")
    assert manifest["content_distance"].sizes == {"stimulus": 10, "content_image": 2, "content_layer": 1}
    long = pd.read_csv(series_run.path / "distances.csv")
    sums = (long["weight"] * long["value"]).groupby([long["stimulus_id"], long["image"]]).sum()
    row = table.loc["sm-2"]
    assert sums[row["stimulus_id"], "grass"] == pytest.approx(row["style_distance_grass"])
    assert manifest.sel(style_image="grass")["style_distance"].sum() > 0


def test_altered_distances_and_weights_are_found(series_run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(series_run.path, folder)
    one, other = (record for record in series_run.records.values() if record.levels["style"] == "geo-2")
    losses = one.distances["style"]["cup"]
    altered = {**one.distances, "style": {**one.distances["style"], "cup": dict.fromkeys(losses, 1.0)}}
    forge(folder, one.stimulus_id, distances=altered)
    forge(folder, other.stimulus_id, style_mix="cup=0.6;grass=0.4")
    found = stimkit.audit(folder, device="cpu").findings
    wrong = {finding.stimulus_id for finding in found if finding.name == "loss_mismatch"}
    assert wrong == {one.stimulus_id, other.stimulus_id}


def test_a_distance_to_another_image_is_not_a_record(series_run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(series_run.path, folder)
    record = next(iter(series_run.records.values()))
    forge(folder, record.stimulus_id, distances={"style": {"moon": record.distances["style"]["cup"]}})
    assert {one.name for one in stimkit.verify(folder).findings} >= {"record_altered"}


def test_masks_limit_mixtures(tmp_path: Path) -> None:
    from PIL import Image

    content = PlanInputs(small_plan()).image("content", "cat")
    mask = np.zeros_like(content)
    mask[:, : mask.shape[1] // 2] = 255
    Image.fromarray(mask).save(tmp_path / "left.png")
    mixes = {"geo": {"of": ["cup", "grass"], "steps": 3, "path": "geodesic"}}
    images = {"root": str(tmp_path), "mask": {"left": "left.png"}}
    plan = mixed_plan(mixes, images=images, factors={"style": ["geo"]}, synthesis={"max_evaluations": 3})
    stimkit.run(plan, tmp_path / "run", device="cpu")
    found = stimkit.audit(tmp_path / "run", device="cpu").findings
    assert not [one for one in found if one.severity == "error"], found


# --- series that do not go steadily ------------------------------------------------------------------------------


def reversals(distances: Sequence[Sequence[float]], **mix: Any) -> list[str]:
    """What is found in a series whose stimuli have these distances to its images."""
    protocol = Protocol.from_dict(document(images={"style": STYLES, "mixes": {"sm": mix}}, factors={"style": ["sm"]}))
    levels, mixtures = protocol.levels("style"), protocol.mixtures("style")
    rows = {
        "stimulus_id": levels,
        "style": levels,
        "style_mix": [";".join(f"{n}=0.5" for n in mixtures[x].parts) if x in mixtures else "" for x in levels],
        "replicate": 1,
        **{f"style_distance_{image}": column for image, column in zip(mix["of"], distances, strict=True)},
    }
    return [one.stimulus_id for one in find_reversals(pd.DataFrame(rows), protocol, ["style", "replicate"])]


def test_a_series_that_turns_back_is_told() -> None:
    series: dict[str, Any] = {"of": ["cup", "grass"], "steps": 4}
    assert reversals([[0, 1, 2, 3], [3, 2, 1, 0]], **series) == []
    assert reversals([[0, 2, 1, 3], [3, 2, 1, 0]], **series) == ["sm-3"]
    assert reversals([[0, 1, 2, 3], [3, 1, 2, 0]], **series) == ["sm-3"]
    wheel: dict[str, Any] = {"of": ["cup", "grass", "brick"], "steps": 6, "closed": True}
    steady = [[0, 1, 2, 2, 2, 1], [2, 1, 0, 1, 2, 2], [2, 2, 2, 1, 0, 1]]
    assert reversals(steady, **wheel) == []
    assert reversals([*steady[:2], [2, 2, 2, 1, 0, 3]], **wheel) == ["cup"]


def test_luminance_weights_of_pictures_are_known() -> None:
    """The mean light of a cross-fade is the weighted mean of its parts', to rounding."""
    plan = mixed_plan({"sm": {"of": ["cup", "grass"], "steps": 3}}, factors={"style": ["sm"]})
    source = PlanInputs(plan)
    light = [luminance(to_linear(to_float(picture(one, "style", source)))).mean() for one in plan.cells]
    assert light[1] == pytest.approx((light[0] + light[2]) / 2, abs=0.002)


def test_gram_matrices_of_moments_are_those_of_losses() -> None:
    features = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0)).double()
    assert Moments.of(features).gram == pytest.approx(gram_matrix(features[None])[0].numpy())


def test_chance_of_a_step_by_distance_is_that_of_its_layers() -> None:
    """Where a step is depends on the layers, so that losses of other pictures in a layer do, too."""
    mixes = {"geo": {"of": ["cup", "grass", "brick"], "steps": 4, "path": "geodesic", "spacing": "distance"}}
    plan = mixed_plan(mixes, factors={"style": ["geo-2"], "style_layers": ["one", "two"]})
    first, second = (cell for cell in plan.cells if cell.ratio == plan.cells[0].ratio)
    assert first.style_layers != second.style_layers
    together, alone = (Remeasurement(plan, PlanInputs(plan), CPU) for _ in range(2))
    together.chance("style", together.resolve(first))
    found, wanted = (one.chance("style", one.resolve(second)) for one in (together, alone))
    assert found and wanted and found.values == pytest.approx(wanted.values, rel=1e-6)


def test_a_lost_step_by_distance_has_a_record() -> None:
    mixes = {"geo": {"of": ["cup", "grass", "brick"], "steps": 4, "path": "geodesic", "spacing": "distance"}}
    plan = mixed_plan(mixes, factors={"style": ["geo-2"]})
    execution = Execution("cpu", "b0", 1, 0, "0", "0", "e0")
    record = lost_record(plan.cells[0], plan, execution, np.empty((0, 3), np.float32), "its process died")
    assert record.status == "failed" and record.style_mix == "" and record.style_sha256.count(";") == 2
