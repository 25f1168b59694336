"""Draw the masks in data/masks: a figure in scikit-image's photograph `astronaut`, and the ground around it.

python data/make_masks.py
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

SIDE = 512  # of the photograph
HEAD = (170, 10, 300, 180)
BODY = [(225, 150), (330, 190), (395, 290), (400, 512), (20, 512), (70, 330), (140, 200)]


def main() -> None:
    folder = Path(__file__).parent / "masks"
    folder.mkdir(exist_ok=True)
    figure = Image.new("L", (SIDE, SIDE), 0)
    draw = ImageDraw.Draw(figure)
    draw.ellipse(HEAD, fill=255)
    draw.polygon(BODY, fill=255)
    figure.save(folder / "figure.png", optimize=True)
    ImageOps.invert(figure).save(folder / "ground.png", optimize=True)


if __name__ == "__main__":
    main()
