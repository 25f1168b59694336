"""Classifiers are read alike from every format, and give what torchvision's layers give."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import vgg16

from stimkit.errors import UsageError, WeightsError
from stimkit.images.pixels import resize, to_float
from stimkit.images.reading import read_source
from stimkit.network.classifiers import Classifier, read_classifier
from stimkit.network.published import PublishedFile, files_called
from stimkit.network.sources import find_downloaded, load_classifier
from stimkit.network.weights import Tensors, Weights, save_weights, tensor_digest
from stimkit.recognition.categories import load_categories
from stimkit.recognition.classifier import ClassifyingNetwork, to_input
from stimkit.recognition.decisions import Recognition, decide
from tests.recognition.classifiers import (
    UNITS,
    tensors_of,
    torchvision_names,
    write_keras,
    write_matconvnet,
    write_state_dict,
    write_timm,
)

Command = Callable[..., tuple[int, str, str]]
FORMATS = {
    "16.pth": write_state_dict,
    "16.safetensors": write_timm,
    "16.h5": write_keras,
    "16.mat": write_matconvnet,
}


@pytest.fixture(scope="module")
def tensors() -> tuple[Tensors, Tensors]:
    return tensors_of()


@pytest.mark.parametrize("name", FORMATS)
def test_classifiers_are_read_alike_from_every_format(
    name: str, tensors: tuple[Tensors, Tensors], tmp_path: Path
) -> None:
    path = tmp_path / name
    FORMATS[name](path, *tensors)
    found = read_classifier(path)
    assert found.keys() == tensors[1].keys()
    assert all((found[key] == value).all() for key, value in tensors[1].items())
    whole = load_classifier(str(path), preprocessing="caffe", network="vgg16")
    assert whole.weights.digest == tensor_digest(tensors[0]) and whole.classes == 1000


def test_importing_keeps_the_classifier(tensors: tuple[Tensors, Tensors], tmp_path: Path, command: Command) -> None:
    write_keras(tmp_path / "a.h5", *tensors)
    code, said, _ = command(
        "weights", "import", tmp_path / "a.h5", "--out", tmp_path / "b.safetensors", "--preprocessing", "caffe"
    )
    assert code == 0 and "classifier of 1000 classes" in said
    before, after = (
        load_classifier(str(tmp_path / name), preprocessing="caffe", network="vgg16")
        for name in ("a.h5", "b.safetensors")
    )
    assert before.digest == after.digest
    write_state_dict(tmp_path / "c.pth", tensors[0], {})
    other = torch.load(tmp_path / "c.pth", weights_only=True)
    other |= {"classifier.0.weight": torch.zeros(4, 12), "classifier.0.bias": torch.zeros(4)}
    torch.save(other, tmp_path / "c.pth")
    code, said, note = command(
        "weights", "import", tmp_path / "c.pth", "--out", tmp_path / "d.safetensors", "--preprocessing", "torchvision"
    )
    assert code == 0 and "without a classifier" in note and "fc6 has 12 inputs" in note


def test_fetched_files_keep_their_classifier(
    tensors: tuple[Tensors, Tensors], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STIMKIT_CACHE", str(tmp_path))
    write_state_dict(tmp_path / "vgg16-mine.pth", *tensors)
    digest = "sha256:" + hashlib.sha256((tmp_path / "vgg16-mine.pth").read_bytes()).hexdigest()
    mine = PublishedFile("mine", "vgg16", "vgg16-mine.pth", digest, 0, "torchvision", "trained by me", "CC0-1.0")
    found = find_downloaded(mine)
    assert found is not None and found.suffix == ".safetensors"
    assert all((read_classifier(found)[key] == value).all() for key, value in tensors[1].items())


def test_weights_with_names_are_looked_for_with_their_classifier(
    tensors: tuple[Tensors, Tensors], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `stimkit weights fetch` leaves them in the cache."""
    monkeypatch.setenv("STIMKIT_CACHE", str(tmp_path))
    weights = Weights("oxford", tensors[0], "caffe", tensor_digest(tensors[0]), network="vgg16")
    without, whole = files_called("oxford", "vgg16")
    assert whole.whole and not without.whole
    save_weights(weights, tmp_path / f"oxford-{without.hexadecimal[:8]}.safetensors")
    with pytest.raises(WeightsError, match=r"stimkit weights fetch oxford --network vgg16 --classifier` .*553 MB"):
        load_classifier("oxford", network="vgg16")
    save_weights(weights, tmp_path / f"oxford-{whole.hexadecimal[:8]}.safetensors", classifier=tensors[1])
    found = load_classifier("oxford", network="vgg16")
    assert found.weights.digest == weights.digest and found.classes == 1000


def test_outputs_are_those_of_torchvision(tensors: tuple[Tensors, Tensors]) -> None:
    with torch.device("meta"):
        theirs = vgg16(weights=None, init_weights=False)
    theirs.features.to_empty(device="cpu")
    theirs.classifier = torch.nn.Sequential(
        torch.nn.Linear(25088, UNITS), torch.nn.ReLU(), torch.nn.Dropout(),
        torch.nn.Linear(UNITS, UNITS), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(UNITS, 1000),
    )  # fmt: skip
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in torchvision_names(*tensors).items()})
    theirs.eval()
    weights = Weights("x", tensors[0], "torchvision", tensor_digest(tensors[0]), network="vgg16")
    image = to_float(resize(read_source("skimage:chelsea", Path()).pixels, (224, 224), "crop"))
    mean, deviation = (torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        wanted = theirs(((torch.from_numpy(image) - mean) / deviation)[None])[0].numpy()
    found = ClassifyingNetwork(Classifier(weights, tensors[1]), torch.device("cpu")).logits(image)
    assert found == pytest.approx(wanted, rel=1e-4, abs=1e-5 * float(np.abs(wanted).max()))


@pytest.mark.parametrize("size", [(224, 224), (32, 32), (48, 96), (500, 300), (1, 7)])
def test_inputs_have_the_size_of_the_training(size: tuple[int, int]) -> None:
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    found = to_input(image)
    assert found.shape == (1, 3, 224, 224) and 0 <= float(found.min()) <= float(found.max()) <= 1
    if size == (224, 224):
        assert (found[0] == image).all()
    if size == (48, 96):  # the middle of the longer side
        assert found[0].mean((1, 2)).numpy() == pytest.approx(image[:, :, 24:72].mean((1, 2)).numpy(), abs=0.01)


def test_files_without_a_classifier_say_so(tensors: tuple[Tensors, Tensors], tmp_path: Path) -> None:
    write_state_dict(tmp_path / "16.pth", tensors[0], {})
    for spec, words in (
        (str(tmp_path / "16.pth"), "holds convolutions without a classifier"),
        ("pca", "have no classifier: only a network that was trained"),
        ("random:3", "have no classifier"),
    ):
        with pytest.raises(WeightsError, match=words):
            load_classifier(spec, preprocessing="torchvision")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fc7.weight": None}, "fc7 is missing"),
        ({"fc6.weight": np.zeros((8, 100), np.float32)}, "fc6 has 100 inputs and 8 biases for 8 units"),
        ({"fc7.bias": np.zeros(3, np.float32)}, "fc7 has 8 inputs and 3 biases"),
        ({"fc8.weight": np.full((1000, 8), np.nan, np.float32)}, "fc8 has values that are not finite"),
        ({"fc8.weight": np.full((1000, 8), 1e300)}, "fc8 has values that are not finite"),
        ({"fc8.weight": np.zeros((1000, 8), np.complex64)}, "not plain arrays of real numbers"),
    ],
)
def test_broken_classifiers_are_refused(
    change: dict[str, object], words: str, tensors: tuple[Tensors, Tensors], tmp_path: Path
) -> None:
    classifier = {key: value for key, value in {**tensors[1], **change}.items() if value is not None}
    write_state_dict(tmp_path / "16.pth", tensors[0], classifier)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match=words):
        read_classifier(tmp_path / "16.pth")


# --- categories and decisions -----------------------------------------------------------------------------------


def test_geirhos_categories_are_those_of_the_paper() -> None:
    """Geirhos et al. (2019), section A.1: 16 categories; ImageNet's names say what the classes are."""
    categories, names = load_categories("geirhos16"), list(load_categories("imagenet").classes)
    assert len(categories.classes) == 16 and sum(map(len, categories.classes.values())) == 207
    assert [names[index] for index in categories.classes["elephant"]] == ["Indian elephant", "African elephant"]
    assert [names[index] for index in categories.classes["cat"]][:2] == ["tabby", "tiger cat"]
    assert [names[index] for index in categories.classes["keyboard"]] == ["computer keyboard", "typewriter keyboard"]
    assert len(categories.classes["dog"]) == 109 and len(set().union(*categories.classes.values())) == 207


def test_decisions_are_means_over_classes(tmp_path: Path) -> None:
    (tmp_path / "map.csv").write_text("class,category\n0,cat\n1,cat\n2,dog\n4,car\n")
    categories = load_categories("map.csv", tmp_path)
    probabilities = np.array([0.3, 0.1, 0.15, 0.35, 0.1])
    decision = decide(np.log(probabilities) + 3, categories)
    scores = {"cat": 0.2, "dog": 0.15, "car": 0.1}
    assert decision.recognized == "cat" and [decision.rank(one) for one in scores] == [1, 2, 3]
    for name, score in scores.items():
        assert decision.probability(name) == pytest.approx(score / 0.45)
    found = Recognition.of(decision, {"content": "dog", "style": "cat"})
    assert found.balance == pytest.approx(np.log10(0.15 / 0.2)) and found.ranks == {"content": 2, "style": 1}
    assert np.isnan(Recognition.of(decision, {"content": "dog"}).balance)


def test_outputs_that_are_not_finite_decide_nothing() -> None:
    with pytest.raises(WeightsError, match="no finite output"):
        decide(np.full(1000, np.nan), load_categories("geirhos16"))


def test_decisions_bear_outputs_of_any_size() -> None:
    categories = load_categories("geirhos16")
    logits = np.zeros(1000)
    logits[281] = 5000.0
    decision = decide(logits, categories)
    assert decision.recognized == "cat" and decision.probability("cat") == 1 and decision.probability("dog") == 0
    assert decision.balance("cat", "dog") > 2000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("index,category\n1,a\n", "needs the columns class and category"),
        ("class,category\n1,a\n-2,b\n", "line 3: a class is a number from 0"),
        ("class,category\n1,a\n1,b\n", "line 3: class 1 is in line 2"),
        ("class,category\n1,a\n2,a\n", "at least 2 categories, and there are 1"),
        ("class,category\n1,\n", "a class is a number from 0, with its category"),
    ],
)
def test_tables_that_are_no_map_of_categories(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "map.csv").write_text(text)
    with pytest.raises(UsageError, match=words):
        load_categories("map.csv", tmp_path)
    with pytest.raises(UsageError, match=r"cannot be read.*did you mean .geirhos16"):
        load_categories("geirhos", tmp_path)


def test_classifiers_of_other_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="need the 1000 classes of ImageNet, and the classifier of mine has 365"):
        load_categories("geirhos16").check_classifier(365, "mine")
    (tmp_path / "map.csv").write_text("class,category\n0,a\n9,b\n")
    load_categories("map.csv", tmp_path).check_classifier(10, "mine")
    with pytest.raises(UsageError, match="need a class 9, and the classifier of mine has 9"):
        load_categories("map.csv", tmp_path).check_classifier(9, "mine")
