"""The schema of a record: everything about one stimulus, typed; as it stands in its file and in a row of the manifest.

A record is written once, when its cell is committed, and is the source of every table. Its file is flat JSON: the
columns of `stimkit.columns.RecordColumns`, the settings of the cell, statistics by name; losses by stage and the
attempts are nested. A setting that a file does not name had its default, so that a new one needs no step of migration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from stimkit.columns import (
    BASIC,
    MEASURES,
    Column,
    Meaning,
    Number,
    RecordColumns,
    describe_field,
    find_meaning,
)
from stimkit.documents.cells import cell_objection
from stimkit.errors import RunFolderError
from stimkit.protocol.settings import Settings
from stimkit.records.migrations import RECORD
from stimkit.records.stages import STAGES, TERMS, Attempt, Loss, RecordedLosses

_RENAMED = {"loss_convention": "loss", "model": "network"}  # settings that have another name in tables
_IN_PARTS = ("size",)  # settings that tables hold as several columns
_OF_RENAMED = {
    "loss_convention": Column("loss_convention", "", "definition of the losses: paper (Gatys et al. 2015) or mean"),
    "model": Column("model", "", "network"),
}


MAX_ATTEMPTS = 10_000  # that a record may have; a protocol asks for 101 at most


class Record(RecordColumns):
    """Everything about one stimulus."""

    levels: dict[str, str]
    """Label of the level of every factor, in the order of the protocol."""
    attributes: Annotated[dict[str, str], Meaning(since=3)] = Field(default_factory=dict)
    """What follows from the levels: attributes of the images, and marks."""
    settings: Settings
    """Those of its cell, with the preprocessing that the weights asked for."""
    statistics: dict[str, Number | None]
    """Those of `BASIC`, of the file; null for a stimulus without an image."""
    losses: RecordedLosses
    distances: Annotated[dict[str, dict[str, dict[str, Loss | None]]], Meaning(since=8)] = Field(default_factory=dict)
    """Losses of the file to the images of its series: by kind, image and layer."""
    trace_sha256: str
    attempts: Annotated[tuple[Attempt, ...], Field(min_length=1, max_length=MAX_ATTEMPTS), Meaning(since=2)]

    _names: frozenset[str] = PrivateAttr(default=frozenset())
    _measured: Mapping[Column, float] = PrivateAttr(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """The columns that the file of the record has values of: earlier versions of stimkit knew fewer."""
        return self._names or frozenset(COLUMN_OF)

    @property
    def measured(self) -> Mapping[Column, float]:
        """What tables of measurements say of the file of the record; NaN where there is no value.

        It is not a part of the record's own file.
        """
        return self._measured

    def with_measured(self, values: Mapping[Column, float]) -> Record:
        """This record with what tables of measurements say of its file."""
        made = self.model_copy()
        made._measured = values
        return made

    def flat(self) -> dict[str, Any]:
        """The record as it stands in its file: JSON values, in the order of the table."""
        settings = self.settings.model_dump(mode="json", exclude=set(_IN_PARTS))
        own = self.model_dump(mode="json", exclude={"settings", "statistics"}, exclude_none=False)
        own["losses"] = {stage: losses for stage, losses in own["losses"].items() if losses is not None}
        for name, setting in _RENAMED.items():
            settings[name] = settings.pop(setting)
        flat = {**own, **settings, **self.statistics}
        first = ("levels", "attributes")
        columns = [name for name in COLUMN_OF if name in flat]
        return {"schema": RECORD.current, **{name: flat.pop(name) for name in (*first, *columns)}, **flat}

    def row(self) -> dict[str, Any]:
        """The values of `COLUMNS`; losses of a stage are `loss_<term>_<stage>`."""
        losses = {
            f"loss_{term}_{stage}": losses.sum(term) for stage, losses in self.losses.stages().items() for term in TERMS
        }
        values = {**self.flat(), **losses}
        return {column.name: values.get(column.name) for column in COLUMNS}

    @property
    def coarse_evaluations_listed(self) -> list[int]:
        """Evaluations at smaller sizes, from the smallest on."""
        return [int(part) for part in _listed(self.coarse_evaluations)]

    def distance(self, kind: str, image: str) -> float | None:
        """The weighted content or style loss of the file to an image of its series."""
        losses = self.distances.get(kind, {}).get(image, {})
        if not losses or None in losses.values():
            return None
        weights = self.layer_weights(kind)
        return sum(weights[layer] * loss for layer, loss in losses.items() if loss is not None)

    def own_trace(self, trace: NDArray[Any]) -> NDArray[Any]:
        """The part of a trace, (evaluations, 3), that is of the size of the stimulus: without that of smaller sizes."""
        return trace[sum(self.coarse_evaluations_listed) :]

    def finite_totals(self, trace: NDArray[Any]) -> NDArray[Any]:
        """The total losses of that part that are finite."""
        totals = self.own_trace(trace)[:, 2]
        finite: NDArray[Any] = totals[np.isfinite(totals)]
        return finite

    def layer_weights(self, term: str) -> dict[str, float]:
        """Weights of the layers of a term, by layer."""
        names = self.content_layers_used if term == "content" else self.style_layers_used
        weights = self.content_layer_weights if term == "content" else self.style_layer_weights
        return dict(zip(_listed(names), map(float, _listed(weights)), strict=True))

    @model_validator(mode="after")
    def _has_statistics(self) -> Self:
        values = {**self.statistics, "clip_low_frac": self.clip_low_frac, "clip_high_frac": self.clip_high_frac}
        absent = [name for name, value in values.items() if value is None]
        if absent and self.status != "failed":
            raise PydanticCustomError("null", "{name} is null, but the status is not failed", {"name": absent[0]})
        return self

    @model_validator(mode="after")
    def _has_labels_for_tables(self) -> Self:
        for name, value in (*self.levels.items(), *self.attributes.items()):
            if objection := cell_objection(value):
                raise PydanticCustomError("cell", "{name} {words}", {"name": name, "words": objection})
        return self

    @model_validator(mode="after")
    def _has_distances_of_its_layers(self) -> Self:
        for kind, images in self.distances.items():
            layers = self.layer_weights(kind).keys() if kind in ("content", "style") else set()
            for image, losses in images.items():
                if losses.keys() != layers:
                    words = {"kind": kind, "image": image}
                    raise PydanticCustomError("layers", "distances.{kind}.{image} are not of the layers used", words)
        return self

    @model_validator(mode="after")
    def _has_losses_of_its_layers(self) -> Self:
        for term in ("content", "style"):
            try:
                weights = self.layer_weights(term)
            except ValueError:
                weights = {"": 0.0}
            for stage, losses in self.losses.stages().items():
                if losses.layers(term).keys() != weights.keys():
                    words = {"stage": stage, "term": term}
                    raise PydanticCustomError("layers", "losses.{stage} are not of the {term} layers used", words)
        return self


def _listed(text: str) -> list[str]:
    return [part for part in text.split(";") if part]


_ORDER = (
    "stimulus_id", "filename", "status", "status_reason", "role", "control_of", "attempt", "content_id", "style_id",
    "content_mix", "style_mix", "style_path", "style_map", "mask_id", "mask_sha256", "regions", "region_count",
    "region_scaling", "replicate", "seed", "content_layers_used", "style_layers_used", "content_layer_weights",
    "style_layer_weights",
    "alpha", "beta", "alpha_beta_ratio", "loss_convention", "content_sha256", "style_sha256", "model", "weights",
    "weights_sha256", "weights_origin", "preprocessing",
    "pooling", "normalize", "fit", "style_scale", "init", "init_contrast", "init_slope", "init_sha256", "optimizer",
    "preconditioner", "history", "learning_rate", "precision", "max_evaluations", "rtol", "window", "target_style",
    "target_content", "colour", "equalize_luminance", "equalize_contrast", "equalize_histogram", "equalize_spectrum",
    "equalize_weight", "gamut", "aperture", "aperture_diameter", "aperture_ramp", "aperture_sigma", "background", "ppd",
    "transfer", "gamma", "bits", "rounding", "titrate", "titrate_value", "titrate_tolerance", "titrate_lowest",
    "titrate_highest", "titrate_runs", "titrate_error", "evaluations", "coarse_evaluations", "rollbacks", "stop_reason",
    *(f"loss_{term}_{stage}" for stage in STAGES for term in TERMS), "height_px", "width_px", "height_deg", "width_deg",
    *BASIC,
)  # fmt: skip
"""Where columns stand that are in another order in the table than in the models; the others come as they are declared,
settings before what was measured."""


def _columns() -> tuple[Column, ...]:
    settings = {
        name: describe_field(name, field)
        for name, field in Settings.model_fields.items()
        if name not in (*_IN_PARTS, *_RENAMED.values())
    }
    losses = {
        f"loss_{term}_{stage}": Column(f"loss_{term}_{stage}", "1", f"{term} loss {where}")
        for stage, where in STAGES.items()
        for term in TERMS
    }
    own = {name: describe_field(name, field) for name, field in RecordColumns.model_fields.items()}
    statistics = {measure.name: measure for measure in MEASURES if measure.name in BASIC}
    known = {**own, **settings, **_OF_RENAMED, **losses, **statistics}
    last = _ORDER.index("titrate_runs") + 1
    further = [name for name in settings if name not in _ORDER]
    order = (*_ORDER[:last], *further, *_ORDER[last:])
    return tuple(known[name] for name in (*order, *(name for name in known if name not in order)))


COLUMNS = _columns()
"""The columns of the manifest beside factors and attributes, in their order."""
COLUMN_OF = {column.name: column for column in COLUMNS}
_SETTINGS = {*Settings.model_fields, *_RENAMED} - {*_IN_PARTS, *_RENAMED.values()}
_SINCE = {
    name: find_meaning(field).since
    for name, field in Record.model_fields.items()
    if name not in ("settings", "statistics")
} | dict.fromkeys(BASIC, 1)
"""The keys that the file of a record has, beside settings, and the schema from which on it has them."""


def read_record(document: Any, name: str) -> Record:
    """Read the JSON values of a record's file, of this schema or an earlier one; `name` is used in messages.

    Raises `RunFolderError` saying where they do not have the form of a record.
    """
    current = RECORD.read(document, name)
    schema = document["schema"]
    if absent := {key for key, since in _SINCE.items() if since <= schema} - document.keys():
        raise RunFolderError(f"{name} lacks {', '.join(sorted(absent))}")
    if unknown := current.keys() - _SINCE.keys() - _SETTINGS - {"schema"}:
        raise RunFolderError(f"{name} has what no record has: {', '.join(sorted(unknown)[:3])}")
    record = build_record(current, name)
    if record.attempt != len(record.attempts):
        raise RunFolderError(f"{name} does not have the form of a record: attempt is not the number of its attempts")
    record._names = frozenset(document)
    return record


def build_record(flat: Mapping[str, Any], name: str) -> Record:
    """Make a record of the values of its file. Raises `RunFolderError` saying which of them cannot be."""
    try:
        settings = {key: flat[_name_of(key)] for key in Settings.model_fields if _name_of(key) in flat}
        values: dict[str, Any] = {
            **{key: flat[key] for key in Record.model_fields if key in flat},
            "settings": Settings(**settings, size=(flat["height_px"], flat["width_px"])),
            "statistics": {key: flat[key] for key in BASIC},
        }
        if isinstance(flat.get("attempts"), list):  # which JSON has for a tuple
            values["attempts"] = tuple(flat["attempts"])
        return Record.model_validate(values)
    except (ValidationError, ArithmeticError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(map(str, first["loc"]))
        reason = f"{where}: {first['msg']}" if where else str(first["msg"])
        raise RunFolderError(f"{name} does not have the form of a record: {reason}") from None


def _name_of(setting: str) -> str:
    """What a setting is called in tables."""
    return next((name for name, other in _RENAMED.items() if other == setting), setting)
