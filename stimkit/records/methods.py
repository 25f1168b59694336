"""Words about a run: a paragraph for a paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stimkit.planning.cells import Plan, WeightsSource
from stimkit.protocol.mixes import KEY_OF, steps_of
from stimkit.protocol.settings import Settings
from stimkit.records.acceptance import rejected_by
from stimkit.records.schema import Record

IN_WORDS = {
    "weights", "network", "preprocessing", "size", "pooling", "normalize", "loss", "optimizer", "learning_rate",
    "history", "preconditioner", "scales", "max_evaluations", "rtol", "window", "init", "init_contrast", "init_slope",
    "precision", "colour", "regions", "region_count", "region_scaling", "fixation_x", "fixation_y", "fovea",
    "titrate", "titrate_value",
    "equalize_luminance", "equalize_contrast", "equalize_histogram", "equalize_spectrum", "equalize_weight",
    "aperture", "aperture_diameter", "background",
}  # fmt: skip
"""Settings that the sentences of the paragraph name."""


def methods_paragraph(
    plan: Plan,
    records: Sequence[Record],
    environments: Mapping[str, Any],
    *,
    shown: Container[str] | None = None,
) -> str:
    """Describe how the stimuli of a run were made, in a paragraph for a methods section.

    Where only some are `shown`, by id, it is about those; how many were accepted is said of all.
    """
    judged = [record for record in records if record.role == "main"]
    whole = [record for record in records if shown is None or record.stimulus_id in shown]
    records = [record for record in whole if record.role == "main"]
    accepted = [record for record in records if record.status == "accepted"]
    cells = [plan.by_id[record.stimulus_id] for record in records]
    settings = [cell.settings for cell in cells or plan.main_cells]
    sizes = _listed(f"{setting.height} × {setting.width} px" for setting in settings)
    networks = _listed(setting.network.upper() for setting in settings)
    weights = _listed(_weights(plan.weights[setting.source]) for setting in settings)
    torch = _listed(str(environment.get("packages", {}).get("torch")) for environment in environments.values())
    devices = _listed(str(environment.get("device_name")) for environment in environments.values())
    varied = {name: {cell.levels[name] for cell in cells or plan.main_cells} for name in plan.factors}
    design = ", ".join(f"{name} ({len(levels)})" for name, levels in varied.items())
    versions = _listed(record.stimkit_version for record in records)
    pooling = _listed(setting.pooling for setting in settings)
    sentences = [
        f"{len(accepted)} stimuli ({sizes}) were synthesized with stimkit {versions} (torch {torch}; {devices}) by the"
        f" method of Gatys, Ecker and Bethge (2015), from the protocol “{plan.protocol.name}” with factors {design}.",
        f"The network was {networks} with {pooling} pooling and the weights {weights}{_rescaled(plan, settings)}.",
        *_layer_sentences(records),
        *_series_sentences(plan, varied),
        "The total loss α · content + β · style"
        f" (convention of losses: {_listed(setting.loss for setting in settings)};"
        f" α/β {_listed(_ratio(record) for record in records)}) was minimized{_coarse_to_fine(records)} by"
        f" {_listed(_optimizer(record) for record in records)} for at most {_limit(settings, records)}, from"
        f" {_listed(_start(record) for record in records)}, in {_listed(setting.precision for setting in settings)}.",
        *_control_sentences(settings, records),
        _further(settings),
        _outcome(accepted),
        _recognition(plan),
        _acceptance(plan, judged),
        _controls(whole),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _weights(source: WeightsSource) -> str:
    """Weights in words: their name, who trained them on what, their digest."""
    origin = f"{source.description}; " if source.description else ""
    return f"{source.spec} ({origin}sha256 {source.digest[:12]})"


def _rescaled(plan: Plan, settings: Sequence[Settings]) -> str:
    """Whether filters or layers have unit means, by stimkit or as they are."""
    wanted = [setting for setting in settings if setting.normalize != "none"]
    known = {setting: plan.weights[setting.source].unit_mean_pooling == setting.pooling for setting in wanted}
    kinds = sorted({setting.normalize for setting, is_so in known.items() if not is_so})
    words = [f"with each {' or '.join(kinds)} rescaled to unit mean activation"] if kinds else []
    words += ["whose activations have unit means as they are"] if any(known.values()) else []
    return "".join(f", {one}" for one in words)


def _listed(values: Iterable[Any]) -> str:
    """Distinct values in words; the ends of a long list."""
    distinct = list(dict.fromkeys(str(value) for value in values))
    shown = distinct if len(distinct) <= 8 else [*distinct[:3], "…", distinct[-1]]
    return ", ".join(shown)


def _layer_sentences(records: Sequence[Record]) -> list[str]:
    sentences = []
    for term in ("content", "style"):
        sets = dict.fromkeys(", ".join(record.layer_weights(term)) for record in records)
        named = "; ".join(layers for layers in sets if layers)
        if named:
            sentences.append(f"{term.capitalize()} layers: {named}.")
    return sentences


def _series_sentences(plan: Plan, varied: Mapping[str, Container[str]]) -> Iterator[str]:
    """Which levels lie between images, and how."""
    for kind in KEY_OF:
        mixes = plan.protocol.mixes(kind)
        for name, steps in steps_of(mixes).items():
            mix = mixes[name]
            if all(step.level in varied.get(kind, ()) for step in steps):
                way = "feature maps" if kind == "content" else "Gram matrices"
                if mix.path == "geodesic":
                    way = "means and covariances of features on Bures-Wasserstein geodesics"
                equal = "distances of Gram matrices" if mix.spacing == "distance" else "steps"
                images = ", ".join(mix.of or mix.mean_of)
                yield (
                    f"The {kind} {name} was the mean of {len(mix.mean_of)} images ({way}: {images})."
                    if mix.mean_of
                    else f"The {kind}s {name} were {len(steps)} levels from image to image ({images}"
                    f"{', and back' if mix.closed else ''}), interpolated in {way}, with equal {equal}."
                )


def _limit(settings: Sequence[Settings], records: Sequence[Record]) -> str:
    """How many evaluations there were at most, and how those at smaller sizes count."""
    coarse = " (those at smaller sizes count by their pixels)" if any(one.coarse_evaluations for one in records) else ""
    return f"{_listed(str(setting.max_evaluations) for setting in settings)} evaluations{coarse}{_stop(settings)}"


def _coarse_to_fine(records: Sequence[Record]) -> str:
    """At how many sizes the stimuli were optimized, where there were smaller ones."""
    counts = sorted({1 + len(record.coarse_evaluations_listed) for record in records})
    if counts in ([], [1]):
        return ""
    return f" coarse to fine, at {' or '.join(map(str, counts))} sizes that are each half of the next,"


def _stop(settings: Sequence[Settings]) -> str:
    rules = _listed(f"{setting.rtol:g} over {setting.window} evaluations" for setting in settings if setting.rtol)
    return f", or until it fell by less than a part of {rules}" if rules else ""


def _further(settings: Sequence[Settings]) -> str:
    """Settings that are not at their default and that no other sentence names."""
    every = [setting.model_dump(exclude=IN_WORDS) for setting in dict.fromkeys(settings)]
    default = Settings().model_dump()
    varied = {name: [values[name] for values in every] for name in every[0]}
    words = [
        f"{name} {_listed(values)}"
        for name, values in varied.items()
        if any(value != default[name] for value in values)
    ]
    return f"Further settings: {'; '.join(words)}." if words else ""


def _windows(settings: Settings) -> str:
    words = f"polar windows of width {settings.region_scaling:g} × eccentricity"
    if settings.fixation_x or settings.fixation_y:
        words += f" about fixation at ({settings.fixation_x:g}, {settings.fixation_y:g}) degrees"
    return f"{words} with a central region of {settings.fovea:g} degrees" if settings.fovea else words


def _control_sentences(settings: Sequence[Settings], records: Sequence[Record]) -> list[str]:
    """What was done beside minimizing losses; nothing where everything is at its default."""
    sentences = []
    varied: dict[str, list[str]] = {
        "Colours were treated as": [setting.colour for setting in settings if setting.colour != "free"],
        "Gram matrices were taken over": [
            f"{one.region_count} × {one.region_count} regions" if one.regions == "grid" else _windows(one)
            for one in settings
            if one.regions != "whole"
        ],
        "The style was limited by the masks": [
            record.mask_id for record in records if record.mask_id and not record.style_map
        ],
        "Styles were those of masks, as": [record.style_map for record in records if record.style_map],
        "α/β was titrated to": [f"{one.titrate} = {one.titrate_value:g}" for one in settings if one.titrate != "none"],
        "In linear light, stimuli were equalized to": [
            f"{what} of {wanted}"
            for setting in settings
            for what, wanted in zip(
                ("mean luminance", "RMS contrast", "histogram", "spectrum"), setting.equalize_targets, strict=True
            )
            if wanted != "none"
        ],
        "They were shown through": [_aperture(setting) for setting in settings if setting.aperture != "none"],
    }
    for words, values in varied.items():
        if values:
            sentences.append(f"{words} {_listed(values)}.")
    if held := {setting.equalize_weight for setting in settings if setting.holds_light}:
        sentences.append(f"Luminance and contrast were held during the optimization (weight {_listed(held)}).")
    return sentences


def _aperture(settings: Settings) -> str:
    size = f"{settings.aperture_diameter:g}°" if settings.aperture_diameter else "the shorter side"
    return f"a {settings.aperture} aperture (diameter {size}, background luminance {settings.background:g})"


def _controls(records: Sequence[Record]) -> str:
    counts = Counter(record.role for record in records if record.role != "main")
    words = ", ".join(f"{count} {role.replace('_', ' ')}" for role, count in counts.items())
    return f"Controls: {words}." if words else ""


def _ratio(record: Record) -> str:
    ratio = record.alpha_beta_ratio
    return ratio if isinstance(ratio, str) else format(ratio, ".3g")


def _optimizer(record: Record) -> str:
    if record.settings.optimizer == "adam":
        return f"Adam (learning rate {record.settings.learning_rate:g})"
    conditioned = "preconditioned " if record.settings.preconditioner != "none" else ""
    return f"{conditioned}L-BFGS (history {record.settings.history})"


def _start(record: Record) -> str:
    if record.settings.init == "noise":
        slope = record.settings.init_slope
        kind = f"noise with a spectrum of 1/f^{slope:g}" if slope else "white noise"
        return f"{kind} of contrast {record.settings.init_contrast:g}"
    return f"the {record.settings.init} image"


def _outcome(accepted: Sequence[Record]) -> str:
    """What the optimization reached, from the files as they are shown."""
    ratios = {term: list(_relative_losses(accepted, term)) for term in ("content", "style")}
    parts = [
        f"{term} loss of the files was {np.median(values):.3g} (range {min(values):.3g} – {max(values):.3g}) of the"
        " initial image's"
        for term, values in ratios.items()
        if values
    ]
    return f"The median {'; the median '.join(parts)}." if parts else ""


def _relative_losses(records: Sequence[Record], term: str) -> Iterator[float]:
    """Losses of files relative to those of their initial images, where both are there."""
    for record in records:
        before, after = record.losses.initial.sum(term), record.losses.file.sum(term)
        if before and after is not None:
            yield after / before


def _recognition(plan: Plan) -> str:
    """Which classifier looked at the stimuli, and how it decided."""
    source, asked = plan.recognition, plan.protocol.recognition
    if source is None or asked is None:
        return ""
    kinds = " and ".join(kind for kind in ("content", "style") if getattr(asked, kind))
    network = f"{source.network.upper()} with the weights {source.spec}"
    return (
        f"A {network} and max pooling classified each stimulus (224 × 224 px) into the"
        f" {len(source.categories.classes):,} categories {source.categories.name}, by the mean probability of their"
        f" classes (Geirhos et al. 2019); the rank of the category of its {kinds} is in the manifest."
    )


def _acceptance(plan: Plan, records: Sequence[Record]) -> str:
    """Which rules decided about the stimuli, and how many did not meet them."""
    accept = plan.protocol.accept
    rules = {**accept.model_dump(exclude_none=True, exclude={"retries", "measured", "curation"}), **accept.measured}
    lost = [record for record in records if record.status != "accepted"]
    again = sum(record.attempt > 1 for record in records)
    named = ", ".join(f"{name} {_rule(value)}" for name, value in rules.items())
    sentences = [f"Stimuli were accepted by the rules: {named}."] if rules else []
    for one in accept.curation:
        seen = sum((record.stimulus_id, record.file_sha256) in one.by_file for record in records)
        reasons = [attempt.status_reason for record in records for attempt in record.attempts]
        rejected = sum(rejected_by(one.curator) in reason for reason in reasons)
        sentences.append(f"{one.curator} looked at {seen} of these files and rejected {rejected} in all.")
    if lost:
        sentences.append(f"{len(lost)} of {len(records)} were not accepted.")
    if again:
        sentences.append(f"{again} were made from other noise after an attempt that was not accepted.")
    return " ".join(sentences)


def _rule(value: Any) -> str:
    if isinstance(value, tuple):
        return " to ".join(f"{one:g}" for one in value) if isinstance(value[0], float) else " or ".join(value)
    return f"≤ {value:g}"
