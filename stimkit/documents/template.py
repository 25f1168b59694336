"""The protocols that `stimkit init` writes: one to start from, and those of published sets."""

from __future__ import annotations

from importlib.resources import files

from stimkit.errors import UsageError, did_you_mean

TEMPLATE = """\
# {name}: a stimulus set for stimkit.
#
#   stimkit plan {file}        what would be made, and what it costs
#   stimkit run {file}         make it (run it again to go on after an interruption)

schema = 1
name = "{name}"
# description = "what the set is for"
# seed = 0                      # another number gives other noise in every cell
# seeds = "unique"              # "shared": cells of the same replicate start from the same noise

[images]
root = "."                      # folder of the image files, relative to this file
# Names become levels of the factors and parts of file names. An image is a file below `root`, or one of
# scikit-image's photographs ("skimage:chelsea", "skimage:coffee", "skimage:rocket", ...).
content = {{ cat = "skimage:chelsea", coffee = "skimage:coffee" }}
style = {{ tissue = "skimage:immunohistochemistry", gravel = "skimage:gravel" }}
# licence = {{ cat = "CC0-1.0" }}   # of image files; `stimkit archive` puts those that have one into the archive

[layers]
# conv1_1 ... conv5_4 (after the ReLU) and pool1 ... pool5.
content = ["conv4_2"]

[layers.style]                  # named sets: the levels of the factor style_layers
fine = ["conv1_1", "conv2_1"]
full = ["conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"]
# weighted = {{ conv1_1 = 0.8, conv2_1 = 0.2 }}       # with layer weights w_l of your own

[model]
weights = "pca"                 # embedded, no download; the paper's network is "oxford", torchvision's "imagenet"
# pooling = "average"           # or "max"
# network = "vgg16"             # for weights of a VGG16

[factors]                       # crossed; every combination is a cell, and every cell a stimulus
content = "*"                   # all content images
style = "*"
style_layers = ["fine", "full"]
ratio = [1e-6, 1e-5]            # alpha / beta: more content to the right; 0 is style only, inf is content only
replicate = 1                   # stimuli per combination, from different noise

[synthesis]                     # any of these may be a factor instead: `size = [128, 256]` in [factors]
size = 128                      # pixels, or [height, width]
max_evaluations = 150
# init = "noise"                # or "content", "style"
# loss = "paper"                # or "mean", the convention of most later code
# precision = "float32"         # or "bfloat16", "tf32", "float64"

# [accept]                      # stimuli that break one of these are kept, but marked as rejected
# relative_style_loss = 0.1     # of the file / of the initial image
# clipping = 0.05               # part of the channel values that had to be clipped
# retries = 2                   # tries from other noise before a cell is given up

# [publication]                 # what `stimkit archive` says in LICENCE and CITATION.cff
# authors = [{{ given = "Ada", family = "Lovelace", orcid = "0000-0000-0000-0000" }}]
# licence = "CC-BY-4.0"         # of the stimuli; weights_licence: of a file of weights, which is in archives then

# [audit]                       # `stimkit audit` fails beyond these; without them it only warns
# clipping = 0.1
# confounds = {{ mean_luminance = 0.2 }}   # part of the variance that a factor may explain at most
"""


def protocol_template(name: str) -> str:
    """Return a commented protocol of that name, ready to run without any file beside it."""
    return TEMPLATE.format(name=name, file=f"{name}.toml")


def published_sets() -> list[str]:
    """Names of the published stimulus sets that there are protocols of."""
    names = (path.name for path in (files("stimkit.documents") / "published").iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml") and "-trials" not in name)


def published_protocol(name: str, like: str) -> dict[str, str]:
    """The protocol of a published set, and its trial design where it had one, called `name`: texts by file name.

    Raises `UsageError` for a set that there is no protocol of.
    """
    known = published_sets()
    if like not in known:
        raise UsageError(f'there is no published set "{like}"{did_you_mean(like, known)}: {", ".join(known)}')
    folder = files("stimkit.documents") / "published"
    found = {name: folder / f"{like}.toml", f"{name}-trials": folder / f"{like}-trials.toml"}
    return {
        f"{file}.toml": path.read_text("utf-8").replace('name = "NAME', f'name = "{name}', 1)
        for file, path in found.items()
        if path.is_file()
    }
