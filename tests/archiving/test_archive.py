"""Archives: a run with its inputs, from which its stimuli can be made again elsewhere."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pandas as pd
import pytest

import stimkit
from stimkit.archiving.archive import archive
from stimkit.archiving.papers import Held, readme
from stimkit.archiving.paths import short_names
from stimkit.auditing.regeneration import regenerate
from stimkit.auditing.verification import verify
from stimkit.errors import ProtocolError, RunFolderError, UsageError
from stimkit.experiment.responses import join_responses, save_joined
from stimkit.experiment.trials.design import TrialDesign
from stimkit.experiment.trials.lists import make_trials
from stimkit.experiment.trials.saving import save_lists
from stimkit.images.png import encode_png
from stimkit.network.sources import load_weights
from stimkit.network.weights import save_weights
from stimkit.records.methods import methods_paragraph
from stimkit.runfolder.run import Run, read_run
from tests.conftest import document, small_plan

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A protocol of files beside its run; the style image has no licence."""
    place = tmp_path_factory.mktemp("files")
    for name, seed in (("content", 0), ("style", 1)):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        (place / f"{name}.png").write_bytes(encode_png(pixels))
    save_weights(load_weights("pca"), place / "w.safetensors")
    description = "<script>alert(1)</script> & more"
    images = {"content": {"a": "content.png"}, "style": {"b": "style.png"}, "licence": {"a": "CC0-1.0"}}
    sections: dict[str, dict[str, Any]] = {
        "images": images,
        "model": {"weights": "w.safetensors"},
        "factors": {"ratio": [1e-5]},
        "publication": {"weights_licence": "MIT"},
    }
    plan = stimkit.plan(stimkit.Protocol.from_dict({**document(**sections), "description": description}, base=place))
    stimkit.run(plan, place / "run", device="cpu")
    return place


def test_an_archive_is_a_run_folder_that_can_be_made_again(place: Path, tmp_path: Path) -> None:
    made = archive(place / "run", tmp_path / "set.zip", audit=False)
    with zipfile.ZipFile(made.path) as packed:
        assert packed.testzip() is None and len(packed.namelist()) == made.files
        packed.extractall(tmp_path / "unpacked")
    unpacked = tmp_path / "unpacked"
    for line in (unpacked / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((unpacked / name).read_bytes()).hexdigest() == digest
    assert verify(unpacked).findings == ()
    # The style image may not be passed on: it is named with its digest, and whoever has it can go on.
    assert len(made.left_out) == 1 and made.left_out[0].startswith("style image b (pixels sha256 ")
    assert made.left_out[0] in (unpacked / "README.md").read_text()
    assert "\n&lt;script&gt;alert(1)&lt;/script&gt; &amp; more\n" in (unpacked / "README.md").read_text()
    with pytest.raises(stimkit.StimkitError, match="--inputs"):
        regenerate(unpacked, tmp_path / "without", device="cpu")
    (tmp_path / "mine").mkdir()
    shutil.copy(place / "style.png", tmp_path / "mine" / "other-name.png")
    again = regenerate(unpacked, tmp_path / "again", inputs=[tmp_path / "mine"], device="cpu")
    assert {one.tier for one in again} == {"identical_file"}


AUTHORS = [{"given": "Ada", "family": "Lovelace", "orcid": "0000-0001-2345-678X"}, {"given": "C.", "family": "B."}]


@pytest.fixture(scope="module")
def complete(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked archive of a run whose protocol has paths of its machine, with lists and answers.

    It is all that is left: images, weights, run, lists and answers are gone.
    """
    maker, reviewer = tmp_path_factory.mktemp("the-maker"), tmp_path_factory.mktemp("reviewer")
    for file in place.glob("*.*"):
        shutil.copy(file, maker / file.name)
    images = {
        "root": str(maker), "content": {"a": str(maker / "content.png")}, "style": {"b": "style.png"},
        "licence": {"a": "CC0-1.0", "b": "CC-BY-4.0"}, "attributes": {"content": {"a": {"category": "/m/01"}}},
    }  # fmt: skip
    publication = {
        "title": "A set", "authors": AUTHORS, "licence": "CC-BY-4.0", "weights_licence": "MIT",
        "doi": "10.5281/zenodo.1",
    }  # fmt: skip
    plan = small_plan(
        images=images, model={"weights": str(maker / "w.safetensors")}, factors={"style_layers": ["two"]},
        publication=publication, observers={"same": {"weights": str(maker / "w.safetensors")}},
    )  # fmt: skip
    stimkit.run(plan, maker / "run", device="cpu", keep_inputs=True)
    stimkit.measure_stimuli(maker / "run", ["observers", "statistics"], device="cpu")
    assert str(maker) in (maker / "run" / "protocol.toml").read_text()
    design = TrialDesign.from_toml('schema = 1\nname = "rate"\nparticipants = 2\n')
    lists = make_trials(maker / "run", design)
    save_lists(lists, maker / "lists")
    for participant, rows in lists.table.groupby("participant"):
        (maker / str(participant)).mkdir()
        rows.assign(rt=0.5, mood="good").to_csv(maker / str(participant) / "data.csv", index=False)
    joined = join_responses(maker / "run", sorted(maker.glob("p*/data.csv")), times="s")
    save_joined(joined, maker / "pilot 1")
    made = archive(
        maker / "run", reviewer / "set.zip", trials=[maker / "lists"], answers=[maker / "pilot 1"], device="cpu"
    )
    assert made.left_out == () and {str(maker), str(maker / "w.safetensors")} <= set(made.shortened)
    shutil.rmtree(maker)
    with zipfile.ZipFile(made.path) as packed:
        packed.extractall(reviewer / "set")
    return reviewer / "set"


def test_no_file_of_an_archive_tells_where_it_was_made(complete: Path) -> None:
    for file in complete.rglob("*"):
        assert not file.is_file() or b"the-maker" not in file.read_bytes(), file
    with netCDF4.Dataset(complete / "manifest.nc") as manifest:
        assert "the-maker" not in str(manifest.__dict__) and set(manifest["weights"][:]) == {"w.safetensors"}
    run = read_run(complete)
    assert run.plan.protocol.images.attributes["content"]["a"] == {"category": "/m/01"}, "which is not a path"
    assert {image.spec for image in run.plan.inputs} == {"content.png", "style.png"}


def test_what_was_measured_is_in_an_archive(complete: Path) -> None:
    assert {path.name for path in (complete / "measurements").iterdir()} == {
        "observers.csv", "observers.json", "statistics.csv", "statistics.json",
    }  # fmt: skip
    assert verify(complete).findings == ()
    words = pd.read_csv(complete / "data_dictionary.csv").set_index("column")
    assert words.loc["observer_same_style", "description"] == "style loss of the file by the network same"


def test_an_audit_without_all_inputs_tells_no_folder(place: Path, tmp_path: Path) -> None:
    """The style image has no licence, and is not found any more."""
    (tmp_path / "the-maker").mkdir()
    for name in ("content.png", "style.png", "w.safetensors"):
        shutil.copy(place / name, tmp_path / "the-maker" / name)
    files = {"content": {"a": "content.png"}, "style": {"b": "style.png"}, "licence": {"a": "CC0-1.0"}}
    plan = small_plan(images={"root": str(tmp_path / "the-maker"), **files}, factors={"style_layers": ["one"]})
    stimkit.run(plan, tmp_path / "the-maker" / "run", device="cpu")
    (tmp_path / "the-maker" / "style.png").unlink()
    made = archive(tmp_path / "the-maker" / "run", tmp_path / "the-maker" / "set.zip", device="cpu")
    with zipfile.ZipFile(made.path) as packed:
        assert "was not found" in packed.read("audit/findings.csv").decode()
        assert not [name for name in packed.namelist() if b"the-maker" in packed.read(name)]


def test_a_reviewer_does_what_the_readme_says(complete: Path, tmp_path: Path, command: Command) -> None:
    text = (complete / "README.md").read_text()
    commands = [line.split()[1:] for line in text.splitlines() if line.startswith("    stimkit ")]
    assert [one[0] for one in commands] == ["verify", "audit", "regenerate"]
    for words in commands:
        values = [complete if word == "." else tmp_path / word if word == "again" else word for word in words]
        code, out, err = command(*values)
        assert code == 0, (words, out, err)
    assert "identical file" in out.replace("_", " ")
    before = {path for path in complete.rglob("*") if path.is_file()}
    assert {path.name for path in before} >= {"report.html", "findings.csv", "LICENCE", "CITATION.cff", "SHA256SUMS"}


def test_everything_in_an_archive_is_described(complete: Path) -> None:
    words = pd.read_csv(complete / "data_dictionary.csv", keep_default_na=False)
    tables = {name: complete / name for name in ("manifest.csv", "losses.csv")}
    tables |= {path.stem: path for path in (complete / "answers" / "data").iterdir()}
    assert set(tables) == {"manifest.csv", "losses.csv", "study-pilot1_data"}
    for name, path in tables.items():
        own = words[words["table"] == (name if name in ("manifest.csv", "losses.csv") else "pilot1")]
        assert set(own["column"]) == set(pd.read_csv(path).columns)
        assert set(own[own["description"] == ""]["column"]) <= {"mood"}, "what the program of an experiment recorded"
    dataset = json.loads((complete / "answers" / "dataset_description.json").read_text())
    assert dataset["@type"] == "Dataset" and dataset["author"][0]["familyName"] == "Lovelace"
    measured = {one["name"] for one in dataset["variableMeasured"]}
    answers = pd.read_csv(tables["study-pilot1_data"])
    assert measured == set(answers.columns) and len(answers) == 4
    assert set(answers["response_file"]) == {"data.csv"}, "not the folders that they were in"
    assert (complete / "trials" / "lists" / "participants" / "p002.csv").is_file()


def test_who_made_a_set_and_what_may_be_done_with_it(complete: Path, small_run: Run, tmp_path: Path) -> None:
    licence = (complete / "LICENCE").read_text()
    assert "by Ada Lovelace, C. B. are licensed under CC-BY-4.0" in licence
    assert "inputs/content-a.png: CC0-1.0" in licence and "safetensors: MIT" in licence
    lines = dict(line.split(": ", 1) for line in (complete / "CITATION.cff").read_text().splitlines())
    values = {key: json.loads(value) for key, value in lines.items()}
    assert values["authors"][0] == {
        "family-names": "Lovelace", "given-names": "Ada", "orcid": "https://orcid.org/0000-0001-2345-678X",
    }  # fmt: skip
    assert (values["cff-version"], values["doi"], values["type"]) == ("1.2.0", "10.5281/zenodo.1", "dataset")
    with zipfile.ZipFile(archive(small_run.path, tmp_path / "set.zip", audit=False).path) as packed:
        assert "names no licence: ask their authors" in packed.read("LICENCE").decode()


def test_folders_that_are_not_what_they_are_given_as(small_run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"has no design\.toml: it is not a folder of trial lists"):
        archive(small_run.path, tmp_path / "set.zip", trials=[tmp_path / "empty"], audit=False)
    with pytest.raises(UsageError, match="has no answers that `stimkit join` wrote"):
        archive(small_run.path, tmp_path / "set.zip", answers=[tmp_path / "empty"], audit=False)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    with pytest.raises(ProtocolError, match=r"publication\.licence: must be an SPDX id, as CC-BY-4\.0"):
        small_plan(publication={"licence": "CC BY 4.0"})


def test_paths_of_equal_names_stay_apart() -> None:
    paths = ["/home/a/w.safetensors", "/home/b/w.safetensors", "C:\\Users\\c\\w.safetensors", "/"]
    assert list(short_names(paths).values()) == ["w.safetensors", "2-w.safetensors", "3-w.safetensors", "root"]


def test_equal_runs_give_equal_archives(small_run: Run, tmp_path: Path) -> None:
    first, second = (
        archive(small_run.path, tmp_path / name, audit=False).path.read_bytes() for name in ("a.zip", "b.zip")
    )
    assert first == second


def test_the_readme_says_how_the_stimuli_were_made(small_run: Run, tmp_path: Path) -> None:
    archive(small_run.path, tmp_path / "set.zip", audit=False)
    with zipfile.ZipFile(tmp_path / "set.zip") as packed:
        text = packed.read("README.md").decode()
    for words in (
        "4 stimuli (32 × 32 px)", "style_layers (2), ratio (2)", "weights pca (principal components of photographs",
        "average pooling",
        "Content layers: conv2_1.", "Style layers: conv1_1; conv1_1, conv2_1.", "α/β 1e-05, 0.0001",
        "preconditioned L-BFGS (history 20) for at most 6 evaluations", "white noise of contrast 0.1",
    ):  # fmt: skip
        assert words in text, words


def test_the_methods_name_whatever_is_not_at_its_default(tmp_path: Path) -> None:
    plan = small_plan(
        factors={"target_style": [0.5, 0.1], "style_layers": ["one"]},
        synthesis={"style_scale": 0.5, "fit": "stretch"},
        output={"transfer": "linear", "bits": 16},
    )
    text = methods_paragraph(plan, [], {})
    assert "until it fell by less than a part of 0.0001 over 20 evaluations" in text
    assert "Further settings: transfer linear; bits 16; fit stretch; style_scale 0.5; target_style 0.5, 0.1." in text
    held = Held([], [], [], [], is_audited=False, shortened=False)
    assert "16-bit PNG (linear light)" in readme(plan, text, held, "s1")
    assert "Further settings" not in methods_paragraph(small_plan(), [], {})
    assert "(principal components" in text and "whose activations have unit means as they are" in text
    other = methods_paragraph(small_plan(model={"pooling": "max"}), [], {})
    assert "with each layer rescaled to unit mean activation" in other and "as they are" not in other


def test_published_weights_are_to_be_fetched() -> None:
    plan = small_plan()
    cells = tuple(replace(cell, settings=cell.settings.model_copy(update={"weights": "oxford"})) for cell in plan.cells)
    plan = replace(plan, cells=cells, weights={cells[0].settings.source: next(iter(plan.weights.values()))})
    held = Held([], [], [], [], is_audited=False, shortened=False)
    lines = readme(plan, "", held, "s1").splitlines()
    assert lines.index("    stimkit weights fetch oxford") < lines.index("    stimkit audit .")
    (said,) = [line for line in lines if line.startswith("- weights `oxford`")]
    assert next(iter(plan.weights.values())).digest in said
    assert "None: they come" not in "\n".join(lines) and "weights fetch" not in readme(small_plan(), "", held, "s1")


def test_an_archive_holds_no_links(small_run: Run, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_run.path, tmp_path / "run"))
    (tmp_path / "elsewhere.png").write_bytes((run / "contact_sheet.png").read_bytes())
    (run / "contact_sheet.png").unlink()
    (run / "contact_sheet.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(RunFolderError, match="1 findings"):
        archive(run, tmp_path / "set.zip")
    assert not (tmp_path / "set.zip").exists()


def test_what_is_not_complete_and_sound_is_refused(
    small_run: Run, place: Path, tmp_path: Path, command: Command
) -> None:
    run = Path(shutil.copytree(small_run.path, tmp_path / "run"))
    next((run / "stimuli").iterdir()).unlink()
    with pytest.raises(RunFolderError, match=r"0 pending cells and 1 findings"):
        archive(run, tmp_path / "set.zip")
    (tmp_path / "there.zip").touch()
    with pytest.raises(UsageError, match="exists already"):
        archive(small_run.path, tmp_path / "there.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "there.zip"]
    code, out, _ = command("archive", place / "run", tmp_path / "set.zip", "--no-audit")
    assert code == 0 and "2 of them inputs" in out and "left out: style image b" in out


def test_a_licence_names_an_image() -> None:
    with pytest.raises(ProtocolError, match=r'images\.licence\.cap: "cap" is not an image \(did you mean "cup"\?\)'):
        small_plan(images={"licence": {"cap": "CC0-1.0"}})


def test_files_that_a_protocol_names_beside_its_images_tell_no_folder(tmp_path: Path) -> None:
    """Verdicts and tables of cells are written out in the lock; the protocol's text has their names alone."""
    (tmp_path / "secret-place").mkdir()
    curation = {"schema": 1, "set": "small", "curator": "Ada", "verdicts": []}
    (tmp_path / "secret-place/c.json").write_text(json.dumps(curation))
    (tmp_path / "secret-place/t.csv").write_text("ratio,style_layers\n1e-5,one\n")
    sections = document(
        factors={"ratio": None, "style_layers": None}, design={"table": str(tmp_path / "secret-place/t.csv")},
        accept={"curation": str(tmp_path / "secret-place/c.json")}, synthesis={"max_evaluations": 1},
    )  # fmt: skip
    stimkit.run(stimkit.plan(stimkit.Protocol.from_dict(sections)), tmp_path / "run", device="cpu")
    archive(tmp_path / "run", tmp_path / "set.zip", audit=False)
    with zipfile.ZipFile(tmp_path / "set.zip") as packed:
        assert not [name for name in packed.namelist() if b"secret-place" in packed.read(name)]
        assert "t.csv" in packed.read("protocol.toml").decode()
