"""Make the pictures of the gallery, docs/gallery/*.png, from the protocols beside them.

    python docs/gallery/make.py --weights FILE [NAME …]

Those in the repository are made with the filters of a VGG16 that was trained on ImageNet.
"""

from __future__ import annotations

import argparse
import tempfile
import tomllib
from pathlib import Path

from PIL import Image

import stimkit
from stimkit.runfolder.layout import CONTROLS_SHEET, SHEET

HERE = Path(__file__).parent
MARGIN, BACKGROUND = 16, (250, 250, 248)


def draw(path: Path, weights: str) -> Image.Image:
    """Run one protocol with these weights: its contact sheet, and that of its controls below it."""
    document = tomllib.loads(path.read_text())
    document["model"] = {**document.get("model", {}), "weights": weights}
    with tempfile.TemporaryDirectory() as folder:
        stimkit.run(stimkit.plan(stimkit.Protocol.from_dict(document, base=HERE)), folder)
        sheets = [Image.open(file).copy() for name in (SHEET, CONTROLS_SHEET) if (file := Path(folder) / name).exists()]
    width = max(sheet.width for sheet in sheets)
    whole = Image.new("RGB", (width, sum(sheet.height for sheet in sheets)), BACKGROUND)
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    weights = str(Path(arguments.weights).resolve()) if Path(arguments.weights).is_file() else arguments.weights
    for path in sorted(HERE.glob("*.toml")):
        if not arguments.names or path.stem in arguments.names:
            draw(path, weights).save(path.with_suffix(".png"), optimize=True)
            print(path.stem, flush=True)


if __name__ == "__main__":
    main()
