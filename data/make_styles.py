"""Paint the style images in data/styles: seeded, with NumPy and Pillow alone.

    python data/make_styles.py [FOLDER]

Every image is painted at twice its size and reduced, so that edges are smooth. The pictures are
original and in the public domain (CC0).
"""

from __future__ import annotations

import colorsys
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 512
SCALE = 2
SIDE = SIZE * SCALE

Field = np.ndarray
Colour = tuple[int, int, int]


def smooth_noise(rng: np.random.Generator, cells: int, side: int = SIDE) -> Field:
    """Smooth random field in -1 … 1 with about `cells` bumps a side."""
    coarse = Image.fromarray(rng.standard_normal((cells + 3, cells + 3)).astype(np.float32), mode="F")
    field = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
    return field / np.abs(field).max()


def fractal_noise(rng: np.random.Generator, cells: int, octaves: int) -> Field:
    """Sum of smooth fields, each finer and weaker by half."""
    field = sum(smooth_noise(rng, cells * 2**octave) / 2**octave for octave in range(octaves))
    return field / np.abs(field).max()


def blend(palette: list[Colour], at: float) -> np.ndarray:
    """Colour at a position 0 … 1 along a palette."""
    colours = np.array(palette, float)
    x = np.clip(at, 0, 1) * (len(palette) - 1)
    low = np.minimum(x.astype(int) if isinstance(x, np.ndarray) else int(x), len(palette) - 2)
    part = np.asarray(x - low)[..., None]
    return colours[low] * (1 - part) + colours[np.asarray(low) + 1] * part


def jitter(rng: np.random.Generator, colour: np.ndarray, hue: float, value: float) -> Colour:
    """Vary hue and brightness a little, as no two strokes have the same paint."""
    h, s, v = colorsys.rgb_to_hsv(*(np.clip(colour, 0, 255) / 255))
    h, v = (h + rng.normal(0, hue)) % 1, float(np.clip(v * (1 + rng.normal(0, value)), 0, 1))
    red, green, blue = colorsys.hsv_to_rgb(h, s, v)
    return round(red * 255), round(green * 255), round(blue * 255)


def reduce(image: Image.Image) -> Image.Image:
    return image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def vortices(centres: list[tuple[float, float, float, float]]) -> tuple[Field, Field]:
    """Direction field (dx, dy) of a slow wind with whirls at (x, y, strength, radius), in parts of the side."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    dx, dy = 0.55 + 0.25 * np.sin(5 * y), 0.28 * np.cos(6 * x + 2 * y)
    for cx, cy, strength, radius in centres:
        rx, ry = x - cx, y - cy
        fall = strength * np.exp(-(rx**2 + ry**2) / radius**2) / radius
        dx, dy = dx - ry * fall, dy + rx * fall
    norm = np.hypot(dx, dy) + 1e-9
    return dx / norm, dy / norm


def stroke_path(field: tuple[Field, Field], x: float, y: float, steps: int, step: float) -> list[tuple[float, float]]:
    points = [(x, y)]
    for _ in range(steps):
        column, row = int(np.clip(x, 0, SIDE - 1)), int(np.clip(y, 0, SIDE - 1))
        x, y = x + step * field[0][row, column], y + step * field[1][row, column]
        points.append((x, y))
    return points


def paint_bristles(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, path: list[tuple[float, float]], colour: np.ndarray, width: int
) -> None:
    """Draw one brush stroke as parallel bristle marks of slightly different paint."""
    (x0, y0), (x1, y1) = path[0], path[-1]
    length = np.hypot(x1 - x0, y1 - y0) + 1e-9
    normal = (-(y1 - y0) / length, (x1 - x0) / length)
    for offset in np.linspace(-width / 2, width / 2, max(2, width // 3)):
        shade = jitter(rng, colour * (1 - 0.16 * abs(offset) / width), 0.008, 0.10)
        start, stop = rng.integers(0, 2), len(path) - rng.integers(0, 3)
        moved = [(x + normal[0] * offset, y + normal[1] * offset) for x, y in path[start:stop]]
        if len(moved) > 1:
            draw.line(moved, fill=shade, width=4, joint="curve")


def swirl(rng: np.random.Generator) -> Image.Image:
    """Night wind: thick strokes that follow whirls around warm lights."""
    lights = [(0.24, 0.26, 5.0, 0.17), (0.68, 0.40, -5.5, 0.21), (0.40, 0.78, 4.0, 0.15), (0.88, 0.84, -3.0, 0.12)]
    field = vortices(lights)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    glow = sum(np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (0.35 * radius) ** 2) for cx, cy, _, radius in lights)
    rings = sum(
        np.exp(-((np.hypot(x - cx, y - cy) - 0.62 * radius) ** 2) / (0.09 * radius) ** 2)
        for cx, cy, _, radius in lights
    )
    tone = 0.42 + 0.33 * fractal_noise(rng, 3, 4) + 0.12 * np.sin(9 * y + 4 * x)
    night = [(9, 16, 50), (18, 42, 105), (32, 82, 150), (70, 135, 180), (150, 195, 205), (222, 228, 205)]
    warm = [(196, 120, 30), (236, 180, 50), (252, 226, 130), (255, 246, 205)]
    image = Image.new("RGB", (SIDE, SIDE), (16, 34, 82))
    draw = ImageDraw.Draw(image)
    for layer, (count, width, steps) in enumerate([(1500, 34, 11), (5200, 22, 9), (5200, 13, 7)]):
        for _ in range(count):
            px, py = rng.uniform(-20, SIDE + 20, 2)
            row, column = int(np.clip(py, 0, SIDE - 1)), int(np.clip(px, 0, SIDE - 1))
            light = float(np.clip(glow[row, column] + 0.75 * rings[row, column] * (layer > 0), 0, 1))
            dark = blend(night, float(tone[row, column] + rng.normal(0, 0.09)))
            colour = dark * (1 - light) + blend(warm, light) * light
            paint_bristles(draw, rng, stroke_path(field, px, py, steps, 7), colour, int(width * rng.uniform(0.7, 1.2)))
    return reduce(image.filter(ImageFilter.GaussianBlur(0.8)))


def mosaic(rng: np.random.Generator) -> Image.Image:
    """Glass tiles in dark grout, set along the curves of a peacock-coloured fan."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    centre = (0.30, 1.08)
    radius, angle = np.hypot(x - centre[0], y - centre[1]), np.arctan2(y - centre[1], x - centre[0])
    waves = 0.5 + 0.5 * np.sin(22 * radius + 1.6 * np.sin(5 * angle) + 0.8 * fractal_noise(rng, 3, 2))
    palette = [
        (16, 60, 92),
        (10, 120, 134),
        (40, 168, 140),
        (226, 190, 84),
        (232, 122, 58),
        (150, 36, 50),
        (244, 232, 206),
    ]
    image = Image.new("RGB", (SIDE, SIDE), (40, 36, 38))
    draw = ImageDraw.Draw(image)
    ring, tile = 0.0, 26.0
    while ring < 1.9 * SIDE:
        ring += tile * rng.uniform(0.95, 1.05)
        around = max(6, int(2 * np.pi * ring / tile))
        turn = rng.uniform(0, 2 * np.pi)
        for index in range(around):
            a = turn + 2 * np.pi * index / around
            px, py = centre[0] * SIDE + ring * np.cos(a), centre[1] * SIDE + ring * np.sin(a)
            if not (-tile < px < SIDE + tile and -tile < py < SIDE + tile):
                continue
            row, column = int(np.clip(py, 0, SIDE - 1)), int(np.clip(px, 0, SIDE - 1))
            colour = jitter(rng, blend(palette, float(waves[row, column])), 0.012, 0.13)
            half = tile * rng.uniform(0.40, 0.45)
            corners = [(half, half), (-half, half), (-half, -half), (half, -half)]
            turned = [
                (px + (u + rng.normal(0, 1.2)) * np.cos(a) - (v + rng.normal(0, 1.2)) * np.sin(a),
                 py + (u + rng.normal(0, 1.2)) * np.sin(a) + (v + rng.normal(0, 1.2)) * np.cos(a))
                for u, v in corners
            ]  # fmt: skip
            draw.polygon(turned, fill=colour)
            light = tuple(min(255, int(channel * 1.25 + 14)) for channel in colour)
            draw.line([turned[1], turned[2]], fill=light, width=3)
    return reduce(image)


def hatching(rng: np.random.Generator) -> Image.Image:
    """Pen and ink: layers of hatching over warm paper, denser where the folds of a cloth are dark."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    folds = np.sin(13 * x + 5 * fractal_noise(rng, 2, 3) + 3 * y)
    dark = np.clip(0.44 + 0.34 * folds + 0.22 * fractal_noise(rng, 4, 3), 0, 1)
    paper = np.clip(np.array([242, 232, 208]) + 7 * fractal_noise(rng, 40, 3)[..., None], 0, 255).astype(np.uint8)
    image = Image.fromarray(paper)
    draw = ImageDraw.Draw(image)
    inks = [(34, 30, 44), (46, 40, 60), (112, 44, 36)]
    bend = 0.35 * fractal_noise(rng, 2, 2)
    for layer, (degrees, threshold, count) in enumerate([(38, 0.16, 6200), (-48, 0.42, 5200), (84, 0.66, 2600)]):
        for _ in range(count):
            px, py = rng.uniform(0, SIDE, 2)
            row, column = int(py), int(px)
            if dark[row, column] < threshold + rng.normal(0, 0.05):
                continue
            direction = np.radians(degrees) + bend[row, column] + rng.normal(0, 0.04)
            length = rng.uniform(22, 52)
            dx, dy = np.cos(direction) * length / 2, np.sin(direction) * length / 2
            sag = rng.normal(0, 1.6)
            points = [
                (px - dx, py - dy),
                (px - sag * np.sin(direction), py + sag * np.cos(direction)),
                (px + dx, py + dy),
            ]
            draw.line(points, fill=jitter(rng, np.array(inks[layer], float), 0.01, 0.15), width=3, joint="curve")
    return reduce(image)


def dots(rng: np.random.Generator) -> Image.Image:
    """Pointillism: a hillside under an evening sky, in dots of pure colour side by side."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    hills = [0.56 + 0.07 * np.sin(5 * x + 1), 0.70 + 0.06 * np.sin(7 * x + 2.4), 0.84 + 0.05 * np.sin(9 * x)]
    sky = blend([(60, 84, 170), (120, 140, 205), (232, 170, 160), (252, 208, 120)], y / 0.58)
    scene = sky
    grounds = [
        [(88, 110, 160), (130, 120, 170)],
        [(46, 120, 84), (150, 178, 70)],
        [(24, 78, 60), (226, 158, 50), (60, 120, 60)],
    ]
    ripple = 0.5 + 0.5 * fractal_noise(rng, 8, 3)
    for edge, palette in zip(hills, grounds, strict=True):
        scene = np.where((y > edge)[..., None], blend(palette, ripple), scene)
    sun = np.exp(-((x - 0.70) ** 2 + (y - 0.36) ** 2) / 0.006)[..., None]
    scene = scene * (1 - sun) + np.array([255, 238, 170]) * sun
    image = Image.new("RGB", (SIDE, SIDE), (238, 226, 206))
    draw = ImageDraw.Draw(image)
    for count, radius in [(9000, 11), (22000, 8), (16000, 5.5)]:
        for _ in range(count):
            px, py = rng.uniform(0, SIDE, 2)
            base = scene[int(py), int(px)]
            if rng.random() < 0.16:  # the opposite colour makes its neighbours glow
                base = 0.45 * base + 0.55 * (255 - base)
            r = radius * rng.uniform(0.7, 1.15)
            squeeze = rng.uniform(0.8, 1.0)
            draw.ellipse((px - r, py - r * squeeze, px + r, py + r * squeeze), fill=jitter(rng, base, 0.035, 0.14))
    return reduce(image)


def marbling(rng: np.random.Generator) -> Image.Image:
    """Marbled paper: drops of colour on a bath, pulled by combs and whirled with a stylus."""
    y, x = (axis.astype(float) for axis in np.mgrid[0:SIDE, 0:SIDE])
    u, v = x.copy(), y.copy()
    for cx, cy, strength, radius in [(0.3, 0.34, 2.6, 0.20), (0.74, 0.70, -2.8, 0.22), (0.80, 0.18, 2.0, 0.13)]:
        rx, ry = u - cx * SIDE, v - cy * SIDE
        turn = strength * np.exp(-np.hypot(rx, ry) / (radius * SIDE))
        u, v = cx * SIDE + rx * np.cos(turn) - ry * np.sin(turn), cy * SIDE + rx * np.sin(turn) + ry * np.cos(turn)
    v = v + 62 * np.sin(2 * np.pi * u / 118) * (0.6 + 0.4 * np.sin(2 * np.pi * v / 900))
    u = u + 30 * np.sin(2 * np.pi * v / 230 + 1)
    colours = np.array(
        [(22, 42, 74), (176, 46, 44), (238, 226, 200), (214, 158, 62), (42, 104, 110), (240, 236, 222)], float
    )
    drops = rng.uniform(-0.25 * SIDE, 1.25 * SIDE, (240, 2))
    sizes = rng.uniform(70, 150, 240)
    ink = rng.integers(0, len(colours), 240)
    result = np.broadcast_to(colours[0], (SIDE, SIDE, 3)).copy()
    for (dx, dy), radius, colour in zip(drops, sizes, ink, strict=True):
        # As on a bath, a new drop pushes what is there outwards without mixing: rings remain.
        rx, ry = u - dx, v - dy
        distance = np.hypot(rx, ry)
        inside = np.clip((radius - distance) / 4 + 0.5, 0, 1)[..., None]
        result = result * (1 - inside) + colours[colour] * inside
        rim = np.exp(-(((distance - radius) / 5) ** 2))[..., None] * 0.55
        result = result * (1 - rim) + colours[(colour + 2) % len(colours)] * rim
    grain = 5 * fractal_noise(rng, 60, 2)[..., None]
    return reduce(Image.fromarray(np.clip(result + grain, 0, 255).astype(np.uint8)))


PAINTINGS: dict[str, Callable[[np.random.Generator], Image.Image]] = {
    "swirl": swirl,
    "mosaic": mosaic,
    "hatching": hatching,
    "dots": dots,
    "marbling": marbling,
}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, paint) in enumerate(PAINTINGS.items(), start=1):
        paint(np.random.default_rng(seed)).save(folder / f"{name}.png", optimize=True)
        print(folder / f"{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "styles")
