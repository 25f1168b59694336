"""docs/reference/numbers.md says enough: numbers of a manifest are computed again in NumPy from its formulas alone.

Nothing of stimkit but the command that makes the runs is used here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import png
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file, save_file
from skimage.feature import canny

import stimkit
from tests.conftest import ROOT, small_plan

Array = NDArray[Any]
FILTERS = dict(zip(("conv1_1", "conv1_2", "conv2_1"), (64, 64, 128), strict=True))
STRIDE = {"conv1_1": 1, "conv1_2": 1, "conv2_1": 2}
CALIBRATION = ("astronaut", "chelsea", "coffee", "rocket", "gravel", "brick", "hubble_deep_field", "motorcycle")


# --- images and network ------------------------------------------------------------------------------------------


def sample(name: str) -> Array:
    found = skimage.data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(skimage.data, name)()
    return np.asarray(np.repeat(found[..., None], 3, axis=2) if found.ndim == 2 else found[..., :3])


def cropped(pixels: Array, height: int, width: int) -> Array:
    h, w = pixels.shape[:2]
    scale = min(h / height, w / width)
    top, left = (h - scale * height) / 2, (w - scale * width) / 2
    box = (left, top, left + scale * width, top + scale * height)
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS, box=box))


def preprocessed(x: Array, kind: str) -> Array:
    """(height, width, 3) in 0 … 1 to (3, height, width)."""
    if kind == "caffe":
        return np.moveaxis(255 * x[..., ::-1] - np.array([103.939, 116.779, 123.68]), 2, 0)
    return np.moveaxis((x - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225]), 2, 0)


def maps_of(x: Array, weights: dict[str, Array], kind: str, pooling: str) -> dict[str, Array]:
    """Feature maps, (filters, height, width)."""
    maps, x = {}, preprocessed(x, kind)
    for name in FILTERS:
        if name == "conv2_1":
            rows, columns = x.shape[1] // 2, x.shape[2] // 2
            blocks = x[:, : 2 * rows, : 2 * columns].reshape(-1, rows, 2, columns, 2)
            x = blocks.mean((2, 4)) if pooling == "average" else blocks.max((2, 4))
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1))), (3, 3), axis=(1, 2))
        x = np.einsum("fcij,chwij->fhw", weights[f"{name}.weight"].astype(float), windows, optimize=True)
        x = maps[name] = np.maximum(x + weights[f"{name}.bias"].astype(float)[:, None, None], 0)
    return maps


@cache
def embedded() -> dict[str, Array]:
    packed = load_file(ROOT / "stimkit/network/pca.safetensors")
    found: dict[str, Array] = {}
    for name in {key.partition(".")[0] for key in packed}:
        pairs, rest = (packed[f"{name}.{part}"].astype(np.float32) for part in ("pairs", "rest"))
        filters = (
            np.concatenate([pairs, -pairs, rest]) * packed[f"{name}.scale"].astype(np.float32)[:, None, None, None]
        )
        found |= {f"{name}.weight": filters, f"{name}.bias": packed[f"{name}.bias"].astype(np.float32)}
    return found


def unit_means(weights: dict[str, Array], kind: str, pooling: str, by: str) -> dict[str, Array]:
    sums = {name: np.zeros(count) for name, count in FILTERS.items()}
    for one in CALIBRATION:
        maps = maps_of(cropped(sample(one), 128, 128) / 255, weights, kind, pooling)
        for name, found in maps.items():
            sums[name] += found.mean((1, 2)) / len(CALIBRATION)
    scaled, before = {}, np.ones(3)
    for name in FILTERS:
        mean = np.full_like(sums[name], sums[name].mean()) if by == "layer" else sums[name]
        mean = np.where(mean > 1e-6 * mean.mean(), mean, 1.0)
        scaled[f"{name}.weight"] = weights[f"{name}.weight"] / mean[:, None, None, None] * before[None, :, None, None]
        scaled[f"{name}.bias"] = weights[f"{name}.bias"] / mean
        before = mean
    return scaled


# --- regions, losses ---------------------------------------------------------------------------------------------


def grid(height: int, width: int, n: int) -> Array:
    rows, columns = np.arange(height) * n // height, np.arange(width) * n // width
    return np.array(
        [(rows[:, None] == row) & (columns[None] == column) for row in range(n) for column in range(n)], float
    )


def polar(height: int, width: int, s: float, right: float, up: float, fovea: float) -> Array:
    """Fixation and radius are in pixels."""
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    y, x = np.meshgrid(rows - height / 2 + up, columns - width / 2 - right, indexing="ij")
    e, phi = np.sqrt(x**2 + y**2), np.arctan2(y, x)
    e0, delta = max(fovea or 0.1 * min(height, width) / 2, 2 / s), np.log((1 + s / 2) / (1 - s / 2))
    k = max(4, round(2 * np.pi / s))
    place = np.log(np.maximum(e, 1e-9) / e0) / delta

    def c(d: Array) -> Array:
        return np.where(np.abs(d) < 1, (1 + np.cos(np.pi * d)) / 2, 0)

    rings = [c(place - i) for i in range(1, int(np.ceil(place.max())) + 1)]
    sectors = [c((phi * k / (2 * np.pi) - j + k / 2) % k - k / 2) for j in range(k)]
    found = [np.clip(1 - sum(rings), 0, 1), *(ring * sector for ring in rings for sector in sectors)]
    found = [one for one in found if one.any()]
    middles = [np.array([(one * rows[:, None]).sum(), (one * columns).sum()]) / one.sum() for one in found]
    large = [at for at, one in enumerate(found) if one.sum() > 1]
    windows = {at: found[at].copy() for at in large}
    for at, one in enumerate(found):
        if at not in windows:
            windows[min(large, key=lambda to: ((middles[to] - middles[at]) ** 2).sum())] += one
    return np.array(list(windows.values()))


def averaged(weights: Array, stride: int) -> Array:
    rows, columns = weights.shape[1] // stride, weights.shape[2] // stride
    blocks = weights[:, : rows * stride, : columns * stride].reshape(-1, rows, stride, columns, stride).mean((2, 4))
    return np.asarray(blocks / np.maximum(blocks.sum((1, 2), keepdims=True), 1e-12))


def grams(maps: Array, weights: Array | None) -> Array:
    f = maps.reshape(len(maps), -1)
    t = np.full((1, f.shape[1]), 1 / f.shape[1]) if weights is None else weights.reshape(len(weights), -1)
    return np.array([(f * one) @ f.T for one in t])


# --- noise, light ------------------------------------------------------------------------------------------------


def philox(seed: int, count: int) -> list[int]:
    """Philox4x64-10 after Salmon et al. 2011."""
    words: list[int] = []
    block, mask = 1, 2**64 - 1
    while len(words) < count:
        c, k = [block, 0, 0, 0], [seed, 0]
        for _ in range(10):
            first, second = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
            c = [(second >> 64) ^ c[1] ^ k[0], second & mask, (first >> 64) ^ c[3] ^ k[1], first & mask]
            k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
        words += c
        block += 1
    return words[:count]


def noise(seed: int, height: int, width: int, contrast: float, slope: float) -> Array:
    u = np.array([word >> 40 for word in philox(seed, 3 * height * width)]).astype(np.float32) * np.float32(2.0**-24)
    white = (np.float32(0.5) + np.float32(contrast) * (u - np.float32(0.5))).reshape(3, height, width)
    if slope == 0:
        return white
    f = np.sqrt(np.fft.fftfreq(height)[:, None] ** 2 + np.fft.fftfreq(width)[None] ** 2)
    factor = np.zeros_like(f)
    factor[f > 0] = f[f > 0] ** -slope
    centred = white.astype(float) - 0.5
    sloped = np.fft.ifft2(np.fft.fft2(centred) * factor).real
    sloped *= (centred.std((1, 2)) / sloped.std((1, 2)))[:, None, None]
    return (0.5 + np.round(sloped * 2**20) / 2**20).astype(np.float32)


def light(v: Array) -> Array:
    linear = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    return np.asarray(linear @ np.array([0.2126, 0.7152, 0.0722]))


def aperture(kind: str, height: int, width: int, diameter: float, ramp: float, sigma: float) -> Array:
    y, x = np.meshgrid(np.arange(height) + 0.5 - height / 2, np.arange(width) + 0.5 - width / 2, indexing="ij")
    r = np.sqrt(x**2 + y**2)
    if kind == "gaussian":
        return np.where(r <= diameter / 2, np.exp(-(r**2) / (2 * sigma**2)), 0)
    flank = (1 + np.cos(np.pi * (r - diameter / 2 + ramp) / ramp)) / 2 if ramp else np.zeros_like(r)
    return np.where(r <= diameter / 2 - ramp, 1, np.where(r <= diameter / 2, flank, 0))


def statistics(v: Array) -> dict[str, float]:
    """Of encoded values (height, width, 3), 0 to 1."""
    y, steps = light(v), v * 255
    luma = steps @ np.array([0.299, 0.587, 0.114])
    first, second = steps[..., 0] - steps[..., 1], (steps[..., 0] + steps[..., 1]) / 2 - steps[..., 2]
    shares = np.unique(np.rint(luma), return_counts=True)[1] / luma.size
    h, w = y.shape
    hann = np.outer(*(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / (n - 1)) for n in (h, w)))
    amplitude = np.abs(np.fft.fft2((y - (y * hann).sum() / hann.sum()) * hann))[:, : w // 2 + 1]
    fy, fx = np.fft.fftfreq(h)[:, None], np.arange(w // 2 + 1)[None] / w
    ring = np.floor(np.sqrt(fy**2 + fx**2) * min(h, w) + 0.5 + 1e-9)
    rings = np.arange(1, min(h, w) // 2)
    heights = np.log([amplitude[ring == one].mean() for one in rings])
    return {
        "mean_luminance": y.mean(), "rms_contrast": y.std() / y.mean(),
        "mean_r": v[..., 0].mean(), "mean_g": v[..., 1].mean(), "mean_b": v[..., 2].mean(),
        "michelson": (y.max() - y.min()) / (y.max() + y.min()),
        "colourfulness": np.sqrt(first.var() + second.var()) + 0.3 * np.sqrt(first.mean() ** 2 + second.mean() ** 2),
        "spectral_slope": np.cov(np.log(rings), heights)[0, 1] / np.log(rings).var(ddof=1),
        "edge_density": canny(luma / 255, sigma=2).mean(), "saturated_frac": ((steps == 0) | (steps == 255)).mean(),
        "entropy": -(shares * np.log2(shares)).sum(),
    }  # fmt: skip


# --- the runs ----------------------------------------------------------------------------------------------------

CASES: dict[str, dict[str, Any]] = {
    "paper": {},
    "mean": {"synthesis": {"loss": "mean", "size": [33, 40], "style_scale": 1.3, "init_slope": 1.0}},
    "means": {
        "synthesis": {"loss": "mean"},
        "layers": {"content": ["conv1_2", "conv2_1"]},
        "seeds": "shared",
        "seed": 7,
    },
    "weights": {"layers": {"style": {"own": {"conv1_1": 0.3, "conv2_1": 2.0}}}, "factors": {"style_layers": ["own"]}},
    "grid": {"synthesis": {"regions": "grid", "region_count": 3}},
    "polar": {"synthesis": {"regions": "polar", "region_scaling": 0.8, "size": [48, 40]}},
    "fixation": {
        "display": {"ppd": 10},
        "synthesis": {"regions": "polar", "region_scaling": 0.6, "fixation_x": 1.0, "fixation_y": -0.7, "fovea": 0.4},
    },
    "mask": {"images": {"mask": {"blob": "blob.png"}}},
    "circle": {
        "display": {"ppd": 10},
        "output": {"aperture": "circle", "aperture_diameter": 2.8, "aperture_ramp": 0.5},
    },
    "gaussian": {"display": {"ppd": 10}, "output": {"aperture": "gaussian", "aperture_sigma": 0.7, "background": 0.3}},
    "display": {"output": {"transfer": "gamma", "gamma": 1.8, "bits": 16}},
    "filters": {"model": {"weights": "raw.safetensors", "pooling": "max", "normalize": "filter"}},
    "layers": {"model": {"weights": "raw.safetensors"}},
    "neither": {"model": {"weights": "raw.safetensors", "normalize": "none"}},
}


SLOW = ("means", "paper", "circle", "grid", "filters")  # whose formulas other runs have as well


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in CASES]
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A run of a case, and its name."""
    folder = tmp_path_factory.mktemp("numbers")
    sections = json.loads(json.dumps(CASES[request.param]))
    blob = np.hypot(*np.mgrid[-150:150, -225.5:225.5][:, :, :451]) < 140
    Image.fromarray(np.uint8(255 * blob)).save(folder / "blob.png")
    sections["images"] = {"root": str(folder), **sections.get("images", {})}
    top = {key: sections.pop(key) for key in ("seed", "seeds") if key in sections}
    if "weights" in sections.get("model", {}):
        scales = np.random.default_rng(1)
        raw = {key: value * np.float32(scales.uniform(0.2, 3)) for key, value in embedded().items()}
        save_file(raw, folder / "raw.safetensors", {"preprocessing": "caffe"})
        sections["model"]["weights"] = str(folder / "raw.safetensors")
    plan = small_plan(**sections) if not top else stimkit.plan(_with(sections, top))
    stimkit.run(plan, folder / "run", device="cpu")
    return request.param, folder


def _with(sections: dict[str, Any], top: dict[str, Any]) -> stimkit.Protocol:
    from tests.conftest import document

    return stimkit.Protocol.from_dict({**document(**sections), **top})


def seen(folder: Path, row: pd.Series[Any]) -> Array:
    path = folder / "run/stimuli" / row["filename"]
    if row["bits"] == 8:
        v = np.asarray(Image.open(path)) / 255
    else:
        width, height, rows, _ = png.Reader(bytes=path.read_bytes()).asDirect()
        v = np.vstack([np.asarray(one, float) for one in rows]).reshape(height, width, 3) / 65535
    if row["transfer"] == "srgb":
        return np.asarray(v)
    linear = v ** row["gamma"]
    return np.asarray(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


def losses(folder: Path, row: pd.Series[Any], x: Array, weights: dict[str, Array]) -> dict[str, float]:
    """Losses of an image (height, width, 3) of encoded values."""
    height, width, scale = row["height_px"], row["width_px"], row["style_scale"]
    content = cropped(sample("chelsea"), height, width)
    style = cropped(sample("coffee"), int(height * scale + 0.5), int(width * scale + 0.5))
    options = (weights, row["preprocessing"], row["pooling"])
    f, p, a = maps_of(x, *options), maps_of(content / 255, *options), maps_of(style / 255, *options)
    regions: Callable[[str], Array | None] = lambda layer: None  # noqa: E731
    if row["regions"] == "grid":
        regions = lambda layer: averaged(grid(height, width, row["region_count"]), STRIDE[layer])  # noqa: E731
    elif row["regions"] == "polar":
        place = [row[name] * row["ppd"] for name in ("fixation_x", "fixation_y", "fovea")]
        regions = lambda layer: averaged(polar(height, width, row["region_scaling"], *place), STRIDE[layer])  # noqa: E731
    of_style = regions
    if isinstance(row["mask_id"], str) and row["mask_id"]:
        pixels = np.repeat(np.asarray(Image.open(folder / "blob.png"))[..., None], 3, axis=2)
        mask = cropped(pixels, height, width).mean(2)[None] / 255
        regions = lambda layer: averaged(mask, STRIDE[layer])  # noqa: E731
    paper = row["loss_convention"] == "paper"
    found = {"content": 0.0, "style": 0.0}
    for layer, w in weighted(row, "content"):
        squares = (f[layer] - p[layer]) ** 2
        found["content"] += w * (squares.sum() / 2 if paper else squares.mean())
    for layer, w in weighted(row, "style"):
        difference = (grams(f[layer], regions(layer)) - grams(a[layer], of_style(layer))) ** 2
        found["style"] += w * difference.mean() / (4 if paper else 1)
    return found | {"total": row["alpha"] * found["content"] + row["beta"] * found["style"]}


def weighted(row: pd.Series[Any], term: str) -> list[tuple[str, float]]:
    names = str(row[f"{term}_layers_used"]).split(";")
    given = [float(one) for one in str(row[f"{term}_layer_weights"]).split(";")]
    if row["style_layers"] != "own":
        mean = row["loss_convention"] == "mean" and term == "style"
        assert given == [1 / FILTERS[name] ** 2 if mean else 1 / len(names) for name in names]
    return list(zip(names, given, strict=True))


@pytest.mark.alternating
def test_the_numbers_of_a_manifest_follow_from_the_page(case: tuple[str, Path]) -> None:
    _, folder = case
    table = pd.read_csv(folder / "run/manifest.csv", dtype={"mask_id": str})
    weights = embedded()
    if (folder / "raw.safetensors").exists():
        weights = load_file(folder / "raw.safetensors")
        by, pooling = str(table["normalize"][0]), str(table["pooling"][0])
        weights = weights if by == "none" else unit_means(weights, "caffe", pooling, by)
    for _, row in table.iterrows():
        height, width = row["height_px"], row["width_px"]
        first = noise(row["seed"], height, width, row["init_contrast"], row["init_slope"])
        assert hashlib.sha256(first.tobytes()).hexdigest() == row["init_sha256"]
        shown = seen(folder, row)
        for stage, image in (("initial", first.transpose(1, 2, 0).astype(float)), ("file", shown)):
            for term, value in losses(folder, row, image, weights).items():
                assert row[f"loss_{term}_{stage}"] == pytest.approx(value, rel=2e-4), (term, stage)
        for column, value in statistics(shown).items():
            if column in table:
                assert row[column] == pytest.approx(value, rel=1e-9, abs=1e-12), column
        data = (folder / "run/stimuli" / row["filename"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["file_sha256"]
        if row["bits"] == 8:
            pixels = np.uint8(np.rint(seen(folder, row) * 255)) if row["transfer"] == "srgb" else None
            assert pixels is not None
            text = f"{height}x{width}x3;".encode() + pixels.tobytes()
            assert hashlib.sha256(text).hexdigest() == row["pixel_sha256"]
        if row["aperture"] != "none":
            check_aperture(row, shown)


def check_aperture(row: pd.Series[Any], shown: Array) -> None:
    """Beyond the aperture is the background, and what the flanks mix is between it and the stimulus."""
    size = (row["height_px"], row["width_px"])
    diameter = row["aperture_diameter"] * row["ppd"] or min(size)
    w = aperture(
        row["aperture"], *size, diameter, row["aperture_ramp"] * row["ppd"], row["aperture_sigma"] * row["ppd"]
    )
    background = light(shown[w == 0])
    assert (w == 0).any() and np.allclose(background, row["background"], atol=0.004)
    if row["aperture"] == "circle":
        inside = light(shown)[w == 1]
        assert abs((w * light(shown)).sum() / w.sum() - row["mean_luminance_inside"]) < 0.05 and inside.std() > 0


@pytest.mark.alternating
def test_statistics_of_audits_follow_from_the_page(case: tuple[str, Path]) -> None:
    _, folder = case
    found = stimkit.audit(folder / "run", device="cpu", losses=False).stimuli
    for _, row in found.iterrows():
        for column, value in statistics(seen(folder, row)).items():
            assert row[column] == pytest.approx(value, rel=1e-7, abs=1e-9), column


def test_ids_and_seeds_follow_from_the_page(case: tuple[str, Path]) -> None:
    name, folder = case
    lock = json.loads((folder / "run/protocol.lock.json").read_bytes())
    table = pd.read_csv(folder / "run/manifest.csv", keep_default_na=False)
    sections = CASES[name]
    given = {**sections.get("synthesis", {}), **sections.get("model", {}), **sections.get("output", {})}
    given |= {"size": given.get("size", [32, 32]), "max_evaluations": 6}
    by = given.pop("normalize", "layer")
    given |= {"filter": {}, "none": {"normalize": False}}.get(by, {"normalize": by})
    given |= {"image_range": "bounded", "history": 20}
    given |= {key: float(value) for key, value in sections.get("display", {}).items()}
    given["size"] = given["size"] if isinstance(given["size"], list) else [given["size"]] * 2
    for _, row in table.iterrows():
        layers = {
            f"{term}_layers": [[layer, weight] for layer, weight in weighted(row, term)]
            for term in ("content", "style")
        }
        identity = {
            **given, "weights": lock["weights"][0]["sha256"], "preprocessing": lock["weights"][0]["preprocessing"],
            "algorithm": 1, "content": row["content_sha256"], "style": row["style_sha256"], **layers,
            "alpha": float(row["alpha"]), "beta": float(row["beta"]),
        }  # fmt: skip
        if row["mask_id"]:
            identity["mask"] = row["mask_sha256"]
        whole = None if sections.get("seeds") == "shared" else identity
        seed = digits({"cell": whole, "replicate": 1, "seed": sections.get("seed", 0)}, 12)
        assert int(seed, 16) == row["seed"]
        assert "s" + digits({**identity, "seed": row["seed"]}, 10) == row["stimulus_id"]


def digits(value: Any, count: int) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:count]


def test_ratios_convert_as_the_page_says() -> None:
    """With two content layers of different weights: the same balance, another number."""
    v: Sequence[tuple[str, float]] = [("conv1_2", 0.25), ("conv2_1", 0.75)]
    plan = small_plan(layers={"content": {"two": dict(v)}}, factors={"ratio": [1e-5]})
    from stimkit.planning.summary import ratio_table

    positions = {"conv1_2": 32 * 32, "conv2_1": 16 * 16}
    factor = 2 * sum(w * FILTERS[layer] * positions[layer] for layer, w in v) / sum(w for _, w in v)
    (row,) = ratio_table(plan)
    assert row["mean"] / row["paper"] == pytest.approx(factor)
