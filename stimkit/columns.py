"""What the values in tables are: names, units and meanings of what is recorded, measured and audited.

A record is these columns, the settings of its cell (`stimkit.protocol.settings`) and its losses; in `RecordColumns`
each has its type, unit and meaning, and where it came later, the schema of records from which on it is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


class Column(NamedTuple):
    """One column of a table."""

    name: str
    units: str
    long_name: str


@dataclass(frozen=True)
class Meaning:
    """What a field of a model is, as the column of a table."""

    words: str = ""
    """By default the description that the field has for editors."""
    units: str | None = None
    """By default 1 for numbers, and none for anything else."""
    since: int = 1
    """The schema of records from which on it is there; records of earlier ones have its default."""


MEASURES = (
    Column("mean_luminance", "1", "mean relative luminance (linear light, sRGB, 0 to 1)"),
    Column("rms_contrast", "1", "standard deviation of luminance / mean luminance"),
    Column("michelson", "1", "(brightest - darkest) / (brightest + darkest) luminance"),
    Column("mean_r", "1", "mean of the red channel (sRGB encoding, 0 to 1)"),
    Column("mean_g", "1", "mean of the green channel (sRGB encoding, 0 to 1)"),
    Column("mean_b", "1", "mean of the blue channel (sRGB encoding, 0 to 1)"),
    Column("colourfulness", "1", "colourfulness (Hasler & Suesstrunk 2003, 8-bit values)"),
    Column("spectral_slope", "1", "slope of log amplitude over log spatial frequency of luminance"),
    Column("edge_density", "1", "fraction of pixels on an edge (Canny 1986, sigma 2 pixels)"),
    Column("saturated_frac", "1", "fraction of channel values that are 0 or 255"),
    Column("entropy", "bit", "entropy of the histogram of 8-bit luma"),
)
BASIC = ("mean_luminance", "rms_contrast", "mean_r", "mean_g", "mean_b")
"""Those that every record holds."""
SSIM_CONTENT = Column(
    "ssim_content", "1", "structural similarity to the content image (Wang et al. 2004), mean over channels"
)
OUTCOMES = (
    Column("log_loss_content", "1", "log10 of the content loss of the file"),
    Column("log_loss_style", "1", "log10 of the style loss of the file"),
    Column("log_loss_total", "1", "log10 of the total loss of the file"),
    Column("clip_low_frac", "1", "fraction of channel values below 0 before clipping"),
    Column("clip_high_frac", "1", "fraction of channel values above 1 before clipping"),
    Column("content_rank", "1", "rank of the content's category"),
    Column("style_rank", "1", "rank of the style's category"),
    Column("content_probability", "1", "probability of the content's category"),
    Column("style_probability", "1", "probability of the style's category"),
    Column("evaluations", "1", "evaluations of loss and gradient"),
    Column("wall_time_s", "s", "wall time of the batch divided by its cells"),
)
"""What else of a stimulus may follow a factor."""
CONFOUNDS = tuple(column.name for column in (*MEASURES, SSIM_CONTENT, *OUTCOMES))
"""Variables that an audit can explain by the factors of the design."""
FURTHER = (
    Column("clipped", "1", "fraction of channel values that were clipped"),
    Column("loss_increase", "1", "relative increase of the total loss after the optimization"),
    Column("still_falling", "1", "relative decrease of the total loss over the last evaluations"),
    Column("content_chance_relative", "1", "content loss / that of the median unrelated image"),
    Column("content_chance_percentile", "%", "unrelated images that are as close to the content target"),
    Column("style_chance_relative", "1", "style loss / that of the median unrelated image"),
    Column("style_chance_percentile", "%", "unrelated images that are as close to the style target"),
)
"""What an audit adds to the table of stimuli."""


Number = Annotated[float, Field(allow_inf_nan=False)]
Natural = Annotated[int, Field(ge=0, lt=2**63)]
RankNumber = Annotated[int, Field(ge=1, lt=2**63)]
Probability = Annotated[float, Field(ge=0, le=1)]
FileName = Annotated[str, Field(pattern=r"^[^/\\\x00]+\.png$")]  # no way out of the folder of stimuli


class RecordColumns(BaseModel):
    """The columns of a record beside settings and losses; null where a stimulus has no such value."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    stimulus_id: Annotated[str, Meaning("identifier of the stimulus: digest of everything that determines its pixels")]
    filename: Annotated[FileName, Meaning("file of the stimulus in the folder stimuli")]
    status: Annotated[
        Literal["accepted", "rejected", "failed"],
        Meaning("accepted; rejected: it breaks a rule of the protocol; or failed: no usable image was found"),
    ]
    status_reason: Annotated[str, Meaning("why the status is not accepted")]
    role: Annotated[str, Meaning("main, or which control it is", since=3)] = "main"
    control_of: Annotated[str, Meaning("stimuli that it is a control of", since=3)] = ""
    attempt: Annotated[Natural, Meaning("number of the attempt that made the stimulus, from 1", since=2)]
    content_id: Annotated[str, Meaning("name of the content image")]
    style_id: Annotated[str, Meaning("name of the style image")]
    mask_id: Annotated[str, Meaning("name of the mask that says where the style goes", since=3)] = ""
    mask_sha256: Annotated[str, Meaning("digest of the mask's pixels as read", since=3)] = ""
    content_mix: Annotated[str, Meaning("images and weights that the content is a mixture of", since=8)] = ""
    style_mix: Annotated[str, Meaning("images and weights that the style is a mixture of", since=8)] = ""
    style_path: Annotated[
        Literal["", "linear", "geodesic"], Meaning("how Gram matrices of the mixture go from image to image", since=8)
    ] = ""
    style_map: Annotated[str, Meaning("styles by the masks that say where they go", since=8)] = ""
    replicate: Annotated[Natural, Meaning("number of the replicate, from 1")]
    seed: Annotated[Natural, Meaning("seed of the initial noise of that attempt", "")]
    content_layers_used: Annotated[str, Meaning("content layers")]
    style_layers_used: Annotated[str, Meaning("style layers")]
    content_layer_weights: Annotated[str, Meaning("weights of the content layers in the content loss", "1")]
    style_layer_weights: Annotated[str, Meaning("weights w_l of the style layers in the style loss", "1")]
    alpha: Annotated[Number, Meaning("weight of the content loss in the total loss")]
    beta: Annotated[Number, Meaning("weight of the style loss in the total loss")]
    alpha_beta_ratio: Annotated[Number | Literal["inf"], Meaning("alpha / beta", "1")]
    content_sha256: Annotated[str, Meaning("digest of the content image's pixels as read")]
    style_sha256: Annotated[str, Meaning("digest of the style image's pixels as read")]
    weights_sha256: Annotated[str, Meaning("digest of the weights")]
    weights_origin: Annotated[str, Meaning("who trained the weights on what", since=6)] = ""
    init_sha256: Annotated[str | None, Meaning("digest of the initial image's float32 values")]
    recognized_as: Annotated[str, Meaning("category that a classifier takes the stimulus for", since=9)] = ""
    content_rank: Annotated[RankNumber | None, Meaning("rank of the content's category, 1 if recognized", since=9)] = (
        None
    )
    style_rank: Annotated[RankNumber | None, Meaning("rank of the style's category, 1 if recognized", since=9)] = None
    content_probability: Annotated[Probability | None, Meaning("probability of the content's category", since=9)] = None
    style_probability: Annotated[Probability | None, Meaning("probability of the style's category", since=9)] = None
    recognition_sha256: Annotated[
        str, Meaning("digest of the classifier, its categories, and those of content and style", since=9)
    ] = ""
    titrate_error: Annotated[
        Number | None, Meaning("difference of the stimulus from the value that was wanted", since=3)
    ] = None
    evaluations: Annotated[Natural, Meaning("evaluations of loss and gradient at the size of the stimulus")]
    coarse_evaluations: Annotated[
        str,
        Field(pattern=r"^(\d{1,9}(;\d{1,9})*)?$"),
        Meaning("evaluations at smaller sizes before, from the smallest on; each half of the next", since=7),
    ] = ""
    rollbacks: Annotated[Natural, Meaning("evaluations taken back because they were not finite")]
    stop_reason: Annotated[str, Meaning("rule that ended the optimization")]
    height_px: Annotated[Natural, Meaning("height of the stimulus", "pixel")]
    width_px: Annotated[Natural, Meaning("width of the stimulus", "pixel")]
    height_deg: Annotated[
        Number | None, Meaning("height of the stimulus in degrees of visual angle", "deg", since=3)
    ] = None
    width_deg: Annotated[Number | None, Meaning("width of the stimulus in degrees of visual angle", "deg", since=3)] = (
        None
    )
    mean_luminance_inside: Annotated[Number | None, Meaning("mean relative luminance inside the aperture", since=4)] = (
        None
    )
    rms_contrast_inside: Annotated[Number | None, Meaning("RMS contrast of luminance inside the aperture", since=4)] = (
        None
    )
    mean_luminance_optimized: Annotated[
        Number | None, Meaning("mean relative luminance inside the aperture before equalization", since=3)
    ] = None
    rms_contrast_optimized: Annotated[
        Number | None, Meaning("RMS contrast of luminance inside the aperture before equalization", since=3)
    ] = None
    equalize_error: Annotated[
        Number | None, Meaning("largest difference from the target of equalization, relative to it", since=3)
    ] = None
    clip_low_frac: Annotated[Number | None, Meaning("fraction of channel values below 0 before clipping")]
    clip_high_frac: Annotated[Number | None, Meaning("fraction of channel values above 1 before clipping")]
    file_sha256: Annotated[str | None, Meaning("digest of the stimulus file")]
    pixel_sha256: Annotated[str | None, Meaning("digest of the stimulus's decoded pixels")]
    device: Annotated[str, Meaning("device")]
    batch_id: Annotated[str, Meaning("batch that the cell was optimized in")]
    batch_size: Annotated[Natural, Meaning("cells in that batch")]
    batch_slot: Annotated[Natural, Meaning("place in that batch, from 0")]
    wall_time_s: Annotated[Number, Meaning("wall time of the batch divided by its cells", "s")]
    stimkit_version: Annotated[str, Meaning("version of stimkit")]
    torch_version: Annotated[str, Meaning("version of torch")]
    env_id: Annotated[str, Meaning("environment in environment.json that the cell was made in")]
    created_utc: Annotated[str, Meaning("time of the commit")]


def find_meaning(field: FieldInfo) -> Meaning:
    """The meaning that the annotation of a field gives, or an empty one."""
    return next((note for note in field.metadata if isinstance(note, Meaning)), Meaning())


def describe_field(name: str, field: FieldInfo) -> Column:
    """Describe a field of a model as the column of a table: its unit and meaning."""
    meaning = find_meaning(field)
    units = meaning.units
    if units is None:
        units = "1" if _is_number(field.annotation) else ""
    return Column(name, units, meaning.words or field.description or name)


def _is_number(annotation: Any) -> bool:
    """Whether a type has numbers only, null aside."""
    parts = [part for part in getattr(annotation, "__args__", ()) if part is not type(None)]
    inner = getattr(annotation, "__origin__", None) is Annotated or parts
    if not inner:
        return annotation in (int, float)
    return all(_is_number(part) for part in parts)
