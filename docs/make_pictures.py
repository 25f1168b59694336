"""Make the pictures of the documents: those of the gallery from the protocols beside them, the others from protocols/.

    python docs/make_pictures.py --weights FILE [NAME …]

Those in the repository are made with the filters of a VGG16 that was trained on ImageNet, in VGG19's places;
`quickstart` alone with the embedded ones. A set is kept in runs/pictures, where it is gone on with.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

import stimkit
from stimkit.protocol.shorthand import choose_variant
from stimkit.runfolder.layout import CONTROLS_SHEET, SHEET

HERE = Path(__file__).parent
PROTOCOLS = HERE.parent / "protocols"
RUNS = HERE.parent / "runs" / "pictures"
DEMONSTRATIONS = (
    "content-reconstructions", "style-reconstructions", "one-photograph-several-styles", "layers-by-ratio",
)  # fmt: skip
BACKGROUND = (250, 250, 248)


def make(path: Path, weights: str | None) -> Path:
    """Run a protocol, with other weights its variant for trained ones; return the run folder."""
    protocol = stimkit.Protocol.load(path)
    if weights is not None:
        document, _ = choose_variant(tomllib.loads(protocol.text), "oxford" if "oxford" in protocol.variants else None)
        document = {**document, "model": {**document.get("model", {}), "weights": weights}}
        protocol = stimkit.Protocol.from_dict(document, base=path.parent)
    folder = RUNS / (path.stem if weights else f"{path.stem}-embedded")
    stimkit.run(stimkit.plan(protocol), folder)
    return folder


def below_each_other(sheets: Iterable[Path]) -> Image.Image:
    """Some pictures as one."""
    images = [Image.open(sheet) for sheet in sheets]
    whole = Image.new("RGB", (max(image.width for image in images), sum(image.height for image in images)), BACKGROUND)
    top = 0
    for image in images:
        whole.paste(image, (0, top))
        top += image.height
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    weights = str(Path(arguments.weights).resolve()) if Path(arguments.weights).is_file() else arguments.weights
    pictures, quickstart = HERE / "pictures", PROTOCOLS / "quickstart.toml"
    sources: dict[Path, list[tuple[Path, str | None]]] = {
        pictures / "quickstart.png": [(quickstart, None)],
        pictures / "quickstart-trained.png": [(quickstart, weights)],
        pictures / "demonstrations.png": [(PROTOCOLS / f"{name}.toml", weights) for name in DEMONSTRATIONS],
    }
    sources |= {path.with_suffix(".png"): [(path, weights)] for path in sorted((HERE / "gallery").glob("*.toml"))}
    for target, protocols in sources.items():
        if not arguments.names or target.stem in arguments.names:
            folders = [make(path, of) for path, of in protocols]
            sheets = [folder / name for folder in folders for name in (SHEET, CONTROLS_SHEET)]
            below_each_other(sheet for sheet in sheets if sheet.exists()).save(target, optimize=True)
            print(target.stem, flush=True)
    if not arguments.names or "map" in arguments.names:
        folder = make(quickstart, weights)
        stimkit.compare_stimuli(folder)
        stimkit.open_run(folder).plot.map("style").savefig(pictures / "map.png", dpi=110)


if __name__ == "__main__":
    main()
