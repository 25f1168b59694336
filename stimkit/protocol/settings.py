"""The settings of one cell that are not its images, layers or weights alpha and beta.

Each setting may be written once, in `[model]` or `[synthesis]`, or be a factor of the design.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from stimkit.columns import Meaning
from stimkit.images.aperture import ApertureShape
from stimkit.images.png import Encoding
from stimkit.images.regions import RegionShape
from stimkit.network.layers import Convention, NetworkName, Pooling, Precision
from stimkit.protocol.values import (
    Colour,
    Finite,
    ImageTarget,
    Normalization,
    Optimizer,
    Size,
    Titrated,
    number_or_images,
)

BY_CONTENT = ("luminance", "covariance", "histogram")  # colours follow the content image
GREY_COLOURS = ("grey", "luminance")  # the optimization has one channel
POOLS = {"contents": "content", "styles": "style"}  # targets that are means over all images of a kind


class Frozen(BaseModel):
    """A part of a protocol: unknown keys are errors, values are not converted, nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, ser_json_inf_nan="strings")


class ModelSettings(Frozen):
    """The network: `[model]` of a protocol."""

    weights: Annotated[
        str,
        Field(min_length=1, description='"pca", "imagenet", "oxford", "random:SEED", or a file'),
        Meaning("name of the weights"),
    ] = "pca"
    network: Annotated[
        NetworkName, Field(description="vgg19, as in the paper, or vgg16, which many other trainings have")
    ] = "vgg19"
    preprocessing: Annotated[
        Literal["auto", "torchvision", "caffe"],
        Field(description="what the network expects of its input; auto: as its weights file says"),
    ] = "auto"
    pooling: Annotated[
        Pooling, Field(description="the paper uses average pooling"), Meaning("pooling of the network")
    ] = "average"
    normalize: Annotated[
        Normalization,
        Field(description="what is rescaled to unit mean activation: each layer, each filter (the paper), or nothing"),
        Meaning("what was rescaled to unit mean activation"),
    ] = "layer"


class SynthesisSettings(Frozen):
    """The optimization and its images: `[synthesis]` of a protocol."""

    size: Annotated[Size, Field(description="pixels of the stimulus: a side, or [height, width]")] = (256, 256)
    fit: Annotated[
        Literal["crop", "stretch"],
        Field(description="how images of another shape are brought to `size`"),
        Meaning("how input images were brought to shape"),
    ] = "crop"
    style_scale: Annotated[
        float, Field(ge=0.125, le=4, description="size of the style image relative to the stimulus")
    ] = 1.0
    loss: Annotated[Convention, Field(description="paper: the formulas of 2015; mean: those of most later code")] = (
        "paper"
    )
    image_range: Annotated[
        Literal["bounded", "free"],
        Field(description="bounded: values stay displayable; free: they are clipped at the end, as in the literature"),
        Meaning("whether values were displayable throughout the optimization"),
    ] = "bounded"
    init: Annotated[
        Literal["noise", "content", "style", "scrambled"],
        Field(description="the initial image; scrambled: the content image with random phases"),
        Meaning("initial image"),
    ] = "noise"
    init_contrast: Annotated[
        float, Field(gt=0, le=1, description="range of the uniform white noise around mid-grey; 1 is 0 to 1")
    ] = 0.1
    init_slope: Annotated[
        float,
        Field(ge=0, le=2, description="amplitudes of the noise fall as 1/f^slope, of the same variance; 0: white"),
    ] = 0.0
    optimizer: Annotated[Optimizer, Field(description="method that minimizes the total loss")] = "lbfgs"
    max_evaluations: Annotated[
        int, Field(ge=0, le=1_000_000, description="largest number of evaluations, in those of the full size")
    ] = 300
    rtol: Annotated[
        float, Field(ge=0, lt=1, description="stop when the total loss fell by less than this part; 0: never")
    ] = 1e-4
    window: Annotated[int, Field(ge=1, description="evaluations over which `rtol` is judged")] = 20
    target_style: Annotated[
        float, Field(ge=0, lt=1, description="stop when style loss / initial style loss is below; 0: never")
    ] = 0.0
    target_content: Annotated[
        float, Field(ge=0, lt=1, description="stop when content loss / initial content loss is below; 0: never")
    ] = 0.0
    scales: Annotated[
        int,
        Field(ge=1, le=8, description="sizes at most, each half of the next, coarse to fine; 1: that of the stimulus"),
        Meaning("largest number of sizes at which the image was optimized"),
    ] = 8
    preconditioner: Annotated[
        Literal["fourier", "none"],
        Field(description="fourier: 1/f^0.5 and decorrelated colour"),
        Meaning("preconditioner of the optimizer"),
    ] = "fourier"
    history: Annotated[int, Field(ge=1, le=100, description="pairs that L-BFGS keeps")] = 20
    learning_rate: Annotated[float, Field(gt=0, description="Adam only"), Finite, Meaning("learning rate of Adam")] = (
        0.05
    )
    precision: Annotated[Precision, Field(description="arithmetic of the network during optimization")] = "float32"
    colour: Annotated[
        Colour,
        Field(
            description="free: as they come; grey: all images in grey; luminance: synthesis in grey, then the colours"
            " of the content image; covariance, histogram: the style image's colours are first matched to the content's"
        ),
        Meaning("colours of the images: free, grey, luminance, covariance or histogram"),
    ] = "free"
    regions: Annotated[
        Literal["whole", "grid", "polar"],
        Field(description="where Gram matrices are taken: over the whole image, n × n regions, or polar windows"),
        Meaning("where Gram matrices were taken: whole image, grid or polar windows"),
    ] = "whole"
    region_count: Annotated[int, Field(ge=2, le=8, description="n of the grid's n × n regions")] = 2
    region_scaling: Annotated[float, Field(ge=0.05, le=1, description="width of a polar window / eccentricity")] = 0.5
    fixation_x: Annotated[
        float, Field(ge=-90, le=90, description="degrees right of the middle of the stimulus, about which windows are")
    ] = 0.0
    fixation_y: Annotated[float, Field(ge=-90, le=90, description="degrees above it")] = 0.0
    fovea: Annotated[
        float,
        Field(ge=0, le=90, description="radius of the central region, degrees; 0: a tenth of half the shorter side"),
    ] = 0.0
    titrate: Annotated[
        Titrated,
        Field(description="find the ratio of each cell at which this has the value `titrate_value`"),
        Meaning("statistic or loss by which the ratio was found"),
    ] = "none"
    titrate_value: Annotated[float, Finite, Field(description="value that `titrate` is to have")] = 0.0
    titrate_tolerance: Annotated[float, Field(gt=0, description="largest difference from the value"), Finite] = 0.01
    titrate_lowest: Annotated[float, Field(gt=0, description="lowest ratio"), Finite] = 1e-7
    titrate_highest: Annotated[float, Field(gt=0, description="highest ratio"), Finite] = 1e-3
    titrate_runs: Annotated[int, Field(ge=1, le=50, description="ratios tried between the lowest and the highest")] = 8

    @property
    def runs(self) -> int:
        """How often a cell is optimized: titration tries the ends, some ratios between, and the one that is found."""
        return 1 if self.titrate == "none" else 3 + self.titrate_runs


class OutputSettings(Frozen):
    """From the optimized image to the stimulus: `[output]` of a protocol. Luminance is relative, in linear light."""

    equalize_luminance: Annotated[
        float | str,
        number_or_images(1),
        Field(description="mean luminance: a number, or that of images"),
        Meaning("target of mean luminance, or the images that it is taken from"),
    ] = "none"
    equalize_contrast: Annotated[
        float | str,
        number_or_images(10),
        Field(description="standard deviation / mean of luminance: a number, or that of images"),
        Meaning("target of RMS contrast, or the images that it is taken from"),
    ] = "none"
    equalize_histogram: Annotated[
        ImageTarget,
        Field(description="distribution of luminance"),
        Meaning("images that the distribution of luminance is taken from"),
    ] = "none"
    equalize_spectrum: Annotated[
        ImageTarget,
        Field(description="amplitude spectrum of luminance"),
        Meaning("images that the amplitude spectrum is taken from"),
    ] = "none"
    equalize_weight: Annotated[
        float,
        Field(ge=0, description="of a penalty that holds luminance and contrast during the optimization; 0: none"),
        Finite,
        Meaning("weight of the penalty that holds luminance and contrast in the optimization"),
    ] = 0.3
    gamut: Annotated[
        Literal["iterate", "compress", "clip"],
        Field(
            description="what equalization does beyond 0 to 1. iterate: clips luminance and hits the target all the"
            " same; compress: lowers contrast; clip: clips channels"
        ),
        Meaning("what equalization does beyond 0 to 1"),
    ] = "iterate"
    aperture: Annotated[Literal["none", "circle", "gaussian"], Field(description="shape of what is shown")] = "none"
    aperture_diameter: Annotated[
        float, Field(ge=0, description="degrees of visual angle; 0: the shorter side"), Finite, Meaning(units="deg")
    ] = 0.0
    aperture_ramp: Annotated[
        float,
        Field(ge=0, description="raised cosine of the circle, degrees"),
        Finite,
        Meaning("width of the raised cosine of a circular aperture", "deg"),
    ] = 0.0
    aperture_sigma: Annotated[
        float,
        Field(ge=0, description="of the Gaussian, degrees"),
        Finite,
        Meaning("standard deviation of a Gaussian aperture", "deg"),
    ] = 0.0
    background: Annotated[float, Field(ge=0, le=1, description="luminance around the aperture")] = 0.2159
    ppd: Annotated[
        float,
        Field(ge=0, description="pixels per degree of visual angle; 0: not known"),
        Finite,
        Meaning(units="1/deg"),
    ] = 0.0
    transfer: Annotated[
        Literal["srgb", "gamma", "linear"],
        Field(description="of the display: sRGB, a power function, or linear light"),
        Meaning("transfer function of the display that the file is for"),
    ] = "srgb"
    gamma: Annotated[float, Field(ge=1, le=4, description="exponent of a display with transfer = gamma")] = 2.2
    bits: Annotated[
        Literal[8, 16], Field(description="of a channel in the file"), Meaning("bits of a channel in the file", "bit")
    ] = 8
    rounding: Annotated[
        Literal["nearest", "dither"],
        Field(description="to 8 bits; dither: up or down at random"),
        Meaning("rounding to these bits"),
    ] = "nearest"

    @property
    def equalize_targets(self) -> tuple[float | str, ...]:
        """What luminance, contrast, histogram and spectrum are made equal to."""
        return self.equalize_luminance, self.equalize_contrast, self.equalize_histogram, self.equalize_spectrum

    @property
    def holds_light(self) -> bool:
        """Whether luminance or contrast are held during the optimization."""
        return self.equalize_weight > 0 and self.equalize_targets[:2] != ("none", "none")

    @property
    def pools(self) -> tuple[str, ...]:
        """Kinds of images of which all are looked at for a target."""
        return tuple(kind for pool, kind in POOLS.items() if pool in self.equalize_targets)


Source = tuple[str, str, NetworkName]
"""What a protocol says of where a network comes from: weights, preprocessing, network."""


class Settings(ModelSettings, SynthesisSettings, OutputSettings):
    """All settings of one cell."""

    @property
    def source(self) -> Source:
        """Where the network comes from."""
        return self.weights, self.preprocessing, self.network

    @property
    def height(self) -> int:
        return self.size[0]

    @property
    def width(self) -> int:
        return self.size[1]

    @property
    def encoding(self) -> Encoding:
        """How the stimulus's file holds its image."""
        return Encoding(self.transfer, self.gamma, self.bits, self.rounding)

    @property
    def aperture_shape(self) -> ApertureShape:
        """The aperture in pixels; by default it is as large as the shorter side."""
        return ApertureShape(
            self.aperture,
            self.size,
            diameter=self.aperture_diameter * self.ppd or float(min(self.size)),
            ramp=self.aperture_ramp * self.ppd,
            sigma=self.aperture_sigma * self.ppd,
        )

    @property
    def region_shape(self) -> RegionShape:
        """Where Gram matrices are taken."""
        return RegionShape(
            self.regions,
            self.size,
            self.region_count,
            self.region_scaling,
            (self.fixation_x * self.ppd, self.fixation_y * self.ppd),
            self.fovea * self.ppd,
        )

    @property
    def uses_degrees(self) -> bool:
        """Whether the stimulus depends on what a degree of visual angle is in pixels."""
        return self.aperture != "none" or any((self.fixation_x, self.fixation_y, self.fovea))

    @property
    def degrees(self) -> tuple[float, float] | None:
        """Height and width in degrees of visual angle, where pixels per degree are known."""
        return (self.height / self.ppd, self.width / self.ppd) if self.ppd else None

    @property
    def draws_noise(self) -> bool:
        """Whether stimuli of other seeds differ."""
        return self.init in ("noise", "scrambled") or self.rounding == "dither"

    @property
    def style_size(self) -> tuple[int, int]:
        """Height and width that the style image is brought to."""
        return (
            max(1, math.floor(self.height * self.style_scale + 0.5)),
            max(1, math.floor(self.width * self.style_scale + 0.5)),
        )


MODEL_KEYS = tuple(ModelSettings.model_fields)
SYNTHESIS_KEYS = tuple(SynthesisSettings.model_fields)
OUTPUT_KEYS = tuple(OutputSettings.model_fields)
SECTION_OF = {
    **dict.fromkeys(MODEL_KEYS, "model"),
    **dict.fromkeys(SYNTHESIS_KEYS, "synthesis"),
    **dict.fromkeys(OUTPUT_KEYS, "output"),
}
"""The table of a protocol that each setting stands in."""
