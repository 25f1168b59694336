"""Categories that images are recognized as, and the classes of a classifier that they consist of.

`geirhos16` are the 16 entry-level categories of Geirhos et al. (2019), ImageNet-trained CNNs are biased towards
texture, with the 207 ImageNet classes that they map to them; geirhos16.csv has their numbers, from 0, in ImageNet's
order.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from stimkit.errors import UsageError, did_you_mean
from stimkit.files import read_file

IMAGENET, GEIRHOS = "imagenet", "geirhos16"
IMAGENET_CLASSES = 1000
MAX_CATEGORIES_FILE = 10_000_000  # bytes


@dataclass(frozen=True)
class Categories:
    """Names of categories, and numbers of the classes of each, from 0."""

    name: str
    """imagenet, geirhos16, or a file."""
    classes: Mapping[str, tuple[int, ...]]

    def check_classifier(self, classes: int, weights: str) -> None:
        """Raise `UsageError` where a classifier has other classes than these categories are made of."""
        largest = max(one for members in self.classes.values() for one in members)
        is_imagenet = self.name in (IMAGENET, GEIRHOS)
        if (is_imagenet and classes != IMAGENET_CLASSES) or largest >= classes:
            needed = f"the {IMAGENET_CLASSES} classes of ImageNet" if is_imagenet else f"a class {largest}"
            raise UsageError(
                f"categories {self.name} need {needed}, and the classifier of {weights} has {classes:,}: give a"
                ' table of its classes, categories = "FILE.csv" with columns class and category'
            )

    def check_name(self, category: str) -> str:
        """The objection to a category that is not one of these; empty for one that is."""
        return (
            "" if category in self.classes else f'"{category}" is not one of them{did_you_mean(category, self.classes)}'
        )


def load_categories(spec: str, base: Path = Path()) -> Categories:
    """Load categories by name, or from a CSV file with columns `class` (a number from 0) and `category`.

    Raises `UsageError` where the file cannot be read or is not such a table.
    """
    if spec == IMAGENET:
        return Categories(spec, {name: (index,) for index, name in enumerate(_imagenet_names())})
    if spec == GEIRHOS:
        return Categories(spec, _table((files("stimkit.recognition") / "geirhos16.csv").read_text("utf-8"), spec))
    try:
        text = read_file(base / spec, MAX_CATEGORIES_FILE).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "") or error
        hint = did_you_mean(spec, (IMAGENET, GEIRHOS))
        raise UsageError(f'categories "{spec}" cannot be read: {reason}{hint}') from None
    return Categories(spec, _table(text, spec))


def _table(text: str, name: str) -> dict[str, tuple[int, ...]]:
    rows = csv.DictReader(io.StringIO(text))
    if not {"class", "category"} <= set(rows.fieldnames or ()):
        raise UsageError(f'categories "{name}": the table needs the columns class and category')
    found: dict[str, list[int]] = {}
    seen: dict[int, int] = {}
    for row in rows:
        number, category = (row["class"] or "").strip(), (row["category"] or "").strip()
        if not (number.isascii() and number.isdecimal() and len(number) < 7 and category):
            raise UsageError(
                f'categories "{name}", line {rows.line_num}: a class is a number from 0, with its category'
            )
        if int(number) in seen:
            raise UsageError(
                f'categories "{name}", line {rows.line_num}: class {number} is in line {seen[int(number)]}'
            )
        seen[int(number)] = rows.line_num
        found.setdefault(category, []).append(int(number))
    if len(found) < 2:
        raise UsageError(f'categories "{name}": a choice needs at least 2 categories, and there are {len(found)}')
    return {category: tuple(sorted(members)) for category, members in found.items()}


@lru_cache(maxsize=1)
def _imagenet_names() -> tuple[str, ...]:
    """The names that torchvision gives ImageNet's classes, in their order."""
    from torchvision.models import VGG19_Weights

    return tuple(VGG19_Weights.IMAGENET1K_V1.meta["categories"])
