"""What a paper that uses a stimulus set cites, as BibTeX: the set, its method, its network, and what was measured."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from stimkit.planning.cells import Plan
from stimkit.recognition.categories import GEIRHOS
from stimkit.version import __version__

Entry = tuple[str, Mapping[str, str]]  # kind, and fields
_ENTRIES: dict[str, Entry] = {
    "gatys2015": ("misc", {
        "author": "Gatys, Leon A. and Ecker, Alexander S. and Bethge, Matthias",
        "title": "A Neural Algorithm of Artistic Style", "year": "2015", "eprint": "1508.06576",
        "archiveprefix": "arXiv",
    }),
    "simonyan2015": ("inproceedings", {
        "author": "Simonyan, Karen and Zisserman, Andrew",
        "title": "Very Deep Convolutional Networks for Large-Scale Image Recognition",
        "booktitle": "International Conference on Learning Representations", "year": "2015", "eprint": "1409.1556",
        "archiveprefix": "arXiv",
    }),
    "liu1989": ("article", {
        "author": "Liu, Dong C. and Nocedal, Jorge",
        "title": "On the limited memory {BFGS} method for large scale optimization",
        "journal": "Mathematical Programming", "volume": "45", "pages": "503--528", "year": "1989",
    }),
    "kingma2015": ("inproceedings", {
        "author": "Kingma, Diederik P. and Ba, Jimmy", "title": "Adam: A Method for Stochastic Optimization",
        "booktitle": "International Conference on Learning Representations", "year": "2015", "eprint": "1412.6980",
        "archiveprefix": "arXiv",
    }),
    "geirhos2019": ("inproceedings", {
        "author": "Geirhos, Robert and Rubisch, Patricia and Michaelis, Claudio and Bethge, Matthias and Wichmann,"
        " Felix A. and Brendel, Wieland",
        "title": "{ImageNet}-trained {CNNs} are biased towards texture; increasing shape bias improves accuracy and"
        " robustness",
        "booktitle": "International Conference on Learning Representations", "year": "2019",
    }),
    "redies2017": ("article", {
        "author": "Redies, Christoph and Brachmann, Anselm and Wagemans, Johan",
        "title": "High entropy of edge orientations characterizes visual artworks from diverse cultural backgrounds",
        "journal": "Vision Research", "volume": "133", "pages": "130--144", "year": "2017",
    }),
    "braun2013": ("article", {
        "author": "Braun, Julia and Amirshahi, Seyed Ali and Denzler, Joachim and Redies, Christoph",
        "title": "Statistical image properties of print advertisements, visual artworks and images of architecture",
        "journal": "Frontiers in Psychology", "volume": "4", "pages": "808", "year": "2013",
    }),
    "brachmann2017": ("article", {
        "author": "Brachmann, Anselm and Barth, Erhardt and Redies, Christoph",
        "title": "Using {CNN} features to better understand what makes visual artworks special",
        "journal": "Frontiers in Psychology", "volume": "8", "pages": "830", "year": "2017",
    }),
    "wang2003": ("inproceedings", {
        "author": "Wang, Zhou and Simoncelli, Eero P. and Bovik, Alan C.",
        "title": "Multiscale structural similarity for image quality assessment",
        "booktitle": "Asilomar Conference on Signals, Systems and Computers", "pages": "1398--1402", "year": "2003",
    }),
    "zhang2018": ("inproceedings", {
        "author": "Zhang, Richard and Isola, Phillip and Efros, Alexei A. and Shechtman, Eli and Wang, Oliver",
        "title": "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
        "booktitle": "IEEE Conference on Computer Vision and Pattern Recognition", "pages": "586--595", "year": "2018",
    }),
    "ding2022": ("article", {
        "author": "Ding, Keyan and Ma, Kede and Wang, Shiqi and Simoncelli, Eero P.",
        "title": "Image Quality Assessment: Unifying Structure and Texture Similarity",
        "journal": "IEEE Transactions on Pattern Analysis and Machine Intelligence", "volume": "44",
        "pages": "2567--2581", "year": "2022",
    }),
    "anderson2001": ("article", {
        "author": "Anderson, Marti J.",
        "title": "A new method for non-parametric multivariate analysis of variance", "journal": "Austral Ecology",
        "volume": "26", "pages": "32--46", "year": "2001",
    }),
    "stimkit": ("software", {
        "author": "{The stimkit authors}",
        "title": "stimkit: controlled stimulus sets for perception experiments, by neural style transfer",
        "version": __version__,
    }),
}  # fmt: skip
_OF_MEASUREMENTS = {
    "orientation": ("redies2017",),
    "phog": ("braun2013",),
    "variances": ("brachmann2017",),
    "similarity": ("wang2003", "zhang2018", "ding2022"),
    "distances": ("anderson2001",),
}


def bibliography(plan: Plan, measurements: Collection[str] = ()) -> str:
    """BibTeX entries for a set: itself, stimkit, the method, the network, the optimizer, and what was measured of it.

    `measurements` are names of tables of measurements.
    """
    keys = ["stimkit", "gatys2015", "simonyan2015"]
    optimizers = {cell.settings.optimizer for cell in plan.cells}
    keys += [key for name, key in (("lbfgs", "liu1989"), ("adam", "kingma2015")) if name in optimizers]
    if plan.recognition and plan.recognition.categories.name == GEIRHOS:
        keys.append("geirhos2019")
    keys += [key for name in measurements for key in _OF_MEASUREMENTS.get(name, ())]
    entries = [_of_set(plan), *((key, *_ENTRIES[key]) for key in dict.fromkeys(keys))]
    return "\n\n".join(_written(*entry) for entry in entries) + "\n"


def _of_set(plan: Plan) -> tuple[str, str, dict[str, str]]:
    """The set itself: what `[publication]` says of it."""
    publication = plan.protocol.publication
    people = [f"{one.family}, {one.given}" for one in publication.authors]
    given = {
        "author": " and ".join(map(_plain, people)) or f"{{The authors of {_plain(plan.protocol.name)}}}",
        "title": _plain(publication.title or plan.protocol.name),
        "doi": _plain(publication.doi),
        "url": _plain(publication.url),
        "note": f"Stimulus set of {len(plan.main_cells)} images",
    }
    return _key(plan.protocol.name), "dataset", {name: value for name, value in given.items() if value}


def _key(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]", "", name) or "set"


def _plain(text: str) -> str:
    """Text that says nothing to TeX."""
    return re.sub(r"([&%$#_{}])", r"\\\1", re.sub(r"[\\~^\s]+", " ", text))


def _written(key: str, kind: str, fields: Mapping[str, str]) -> str:
    return "\n".join(_lines(key, kind, fields))


def _lines(key: str, kind: str, fields: Mapping[str, str]) -> Iterator[str]:
    yield f"@{kind}{{{key},"
    for name, value in fields.items():
        yield f"  {name} = {{{value}}},"
    yield "}"
