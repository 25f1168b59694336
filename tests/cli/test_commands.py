"""The command line: exit codes, messages on stderr, files on disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from PIL import Image

import stimkit
from stimkit.cli.main import app
from stimkit.cli.progress import LinePrinter
from stimkit.planning import cost
from stimkit.runfolder.run import Run
from stimkit.running.events import Clock, Event, Running
from stimkit.synthesis.minimization import Progress
from tests.conftest import ROOT, document, small_plan

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def protocol(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(tomli_w.dumps(document()))
    return path


def test_plan_shows_what_would_be_made(command: Command, protocol: Path) -> None:
    code, out, err = command("plan", protocol)
    assert (code, err) == (0, "")
    for text in ("small: 4 cells", "style_layers", "32 × 32 px", "weights  pca", "under mean losses", "memory", "disk"):
        assert text in out


def test_plan_as_json_and_cells(command: Command, protocol: Path) -> None:
    code, out, _ = command("plan", protocol, "--json", "--cells")
    summary = json.loads(out)
    assert (code, summary["cells"], len(summary["cells_list"])) == (0, 4, 4)
    assert summary["estimate"]["evaluations"] == 24
    code, out, _ = command("plan", protocol, "--cells")
    ids = [line.split()[0] for line in out.splitlines()]
    assert ids == [cell["stimulus_id"] for cell in summary["cells_list"]]


def test_plan_check_says_done_and_pending(command: Command, protocol: Path, small_run: Run, tmp_path: Path) -> None:
    code, out, _ = command("plan", protocol, "--check", small_run.path)
    assert (code, "4 done, 0 rejected, 0 failed, 0 pending" in out) == (0, True)
    more = tmp_path / "more.toml"
    more.write_text(tomli_w.dumps(document(factors={"replicate": 3})))
    code, out, _ = command("plan", more, "--check", small_run.path)
    assert (code, "4 done, 0 rejected, 0 failed, 8 pending" in out) == (3, True)
    other = tmp_path / "other.toml"
    other.write_text(tomli_w.dumps(document(synthesis={"size": 40})))
    code, _, err = command("plan", other, "--check", small_run.path)
    assert (code, "holds another protocol" in err) == (2, True)


def test_run_makes_the_set_and_says_where(command: Command, protocol: Path, tmp_path: Path) -> None:
    code, out, err = command("run", protocol, "--out", tmp_path / "run", "--device", "cpu", "--batch-size", 4)
    assert code == 0, err
    assert "4 of 4 cells made" in out and "contact_sheet.png" in out
    assert [line.split()[0] for line in err.splitlines()] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    code, out, err = command("run", protocol, "--out", tmp_path / "run", "--device", "cpu")
    assert (code, "0 of 4 cells made" in out, "4 were there before" in out) == (0, True, True)
    with Image.open(tmp_path / "run" / "contact_sheet.png") as sheet:
        assert sheet.width > 2 * 32 and sheet.height > 2 * 32


def write(path: Path, **sections: dict[str, object]) -> Path:
    path.write_text(tomli_w.dumps(document(**sections)))
    return path


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"synthesis": {"sise": 32}}, 'synthesis.sise: unknown key (did you mean "size"?)'),
        ({"factors": {"ratio": [-1.0]}}, "factors.ratio[0]: must be >= 0 (got -1.0)"),
        ({"images": {"content": {"cat": "missing.png"}}}, 'images.content.cat: image "missing.png" was not found'),
        (
            {"images": {"content": {"cat": "corrupt.png"}}},
            'image "corrupt.png" is not an image of a format',
        ),
        ({"images": {"content": {"cat": "../up.png"}}}, 'image "../up.png" lies outside the image root'),
        ({"images": {"content": {"cat": "huge.png"}}}, "at most 64,000,000 are accepted"),
        ({"synthesis": {"size": 1}}, "1 px is too small for conv2_1, which needs at least 2 px"),
        ({"model": {"weights": "none.safetensors"}}, 'model.weights: weights "none.safetensors": no file'),
        ({"model": {"weights": "imagenet"}}, "`stimkit weights fetch imagenet` downloads them once"),
    ],
)
def test_bad_protocols_end_with_2_and_one_message(
    sections: dict[str, dict[str, object]], message: str, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "corrupt.png").write_bytes(b"nonsense")
    Image.new("1", (9000, 9000)).save(tmp_path / "huge.png")
    code, out, err = command(
        "run", write(tmp_path / "bad.toml", **sections), "--out", tmp_path / "run", "--device", "cpu"
    )
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err and len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_gpu_that_is_not_there(command: Command, protocol: Path, tmp_path: Path) -> None:
    code, _, err = command("run", protocol, "--out", tmp_path / "run", "--device", "cuda:77")
    assert code == 2
    assert "CUDA" in err and "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_places_that_cannot_hold_a_run(command: Command, protocol: Path, tmp_path: Path) -> None:
    code, _, err = command("run", protocol, "--out", protocol, "--device", "cpu")
    assert (code, "exists and is not a run folder" in err) == (2, True)
    code, _, err = command("run", protocol, "--out", protocol / "below", "--device", "cpu")
    assert (code, "cannot be written" in err) == (6, True)


def test_the_package_is_the_command_and_few_letters_are_enough(protocol: Path) -> None:
    """Redirected output of Windows has fewer letters than the tables: no ω, say."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "stimkit", "plan", str(protocol)]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert b"32 ? 32 px" in done.stdout


def test_names_with_brackets_are_printed(small_run: Run, tmp_path: Path, command: Command) -> None:
    run = Path(shutil.copytree(small_run.path, tmp_path / "[pilot]" / "a[/b]"))
    code, out, _ = command("verify", run)
    assert code == 0 and out.startswith(f"{run}: 4 of 4")


def test_infinite_ratios_in_json(command: Command, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(tomli_w.dumps(document(factors={"ratio": [1e-5, float("inf")]})))
    code, out, _ = command("plan", tmp_path / "p.toml", "--json", "--cells")
    assert code == 0 and "inf" in json.loads(out, parse_constant=pytest.fail)["factors"]["ratio"]


def test_init_writes_a_protocol_that_plans(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("init", "pilot")[0] == 0
    code, out, _ = command("plan", "pilot.toml")
    assert (code, "pilot: 16 cells" in out) == (0, True)
    code, _, err = command("init", "pilot")
    assert (code, "exists already" in err) == (2, True)
    code, _, err = command("init", "a b")
    assert (code, "must consist of letters" in err) == (2, True)


def test_schema_is_json(command: Command) -> None:
    code, out, _ = command("schema")
    assert (code, json.loads(out)["title"]) == (0, "stimkit protocol")


def test_doctor_reports_and_tests_itself(command: Command) -> None:
    code, out, _ = command("doctor", "--json")
    findings = json.loads(out)
    assert code == 0
    assert set(findings) == {"versions", "devices", "precision", "weights", "cache", "self-test"}
    assert findings["self-test"][0].startswith("passed")
    assert "intact" in findings["weights"][0] and "not on this machine" in findings["weights"][1]


def test_version_and_help(command: Command) -> None:
    assert command("--version")[1] == f"stimkit {stimkit.__version__}\n"
    code, out, _ = command("run", "--help")
    assert (code, "Run it again to go on" in out) == (0, True)


def test_weights_commands(command: Command, tmp_path: Path) -> None:
    code, out, _ = command("weights", "list")
    assert (code, out.startswith("pca              embedded")) == (0, True)
    code, out, _ = command("weights", "inspect", "pca", "--json")
    assert json.loads(out)["parameters"] == 20_024_384
    code, out, _ = command(
        "weights", "import", ROOT / "stimkit/network/pca.safetensors", "--out", tmp_path / "w.safetensors"
    )
    assert (code, "torchvision preprocessing" in out) == (0, True)
    first, second = (
        json.loads(command("weights", "inspect", one, "--json")[1]) for one in ("pca", tmp_path / "w.safetensors")
    )
    assert first["sha256"] == second["sha256"]
    code, _, err = command(
        "weights", "import", ROOT / "stimkit/network/pca.safetensors", "--out", tmp_path / "w.safetensors"
    )
    assert (code, "exists already" in err) == (2, True)
    code, _, err = command("weights", "fetch", "resnet")
    assert (code, "only imagenet and oxford can" in err) == (2, True)
    code, _, err = command("weights", "fit", "--images", tmp_path, "--out", tmp_path / "f.safetensors")
    assert (code, "give at least 2" in err) == (2, True)


def test_weights_fit_with_images(command: Command, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"nonsense")
    code, _, err = command("weights", "fit", "--images", tmp_path, "--out", tmp_path / "f.safetensors")
    assert (code, 'image "c.png" is not an image' in err) == (2, True)
    assert not (tmp_path / "f.safetensors").exists()


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    for name in names:
        assert f"stimkit {name}" in readme, name
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for command in group.typer_instance.registered_commands:
            assert command.callback is not None
            name = command.name or command.callback.__name__
            assert f"weights {name}" in readme or f"`{name}`" in readme, name


# --- what a plan says ------------------------------------------------------------------------------------------


def plan_text(tmp_path: Path, command: Command, **sections: Any) -> str:
    path = tmp_path / "p.toml"
    path.write_text(tomli_w.dumps(document(**sections)))
    code, out, err = command("plan", path)
    assert code == 0, err
    return out


def test_a_plan_counts_retries_and_not_what_is_done(
    tmp_path: Path, command: Command, small_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "at most  24 evaluations, about" in plan_text(tmp_path, command)
    assert "at most  72 evaluations, about" in plan_text(tmp_path, command, accept={"retries": 2, "clipping": 0.5})
    shutil.copytree(small_run.path, tmp_path / "runs/small")
    assert "all cells are done" in plan_text(tmp_path, command)
    next((tmp_path / "runs/small/records").iterdir()).unlink()
    assert "at most  6 evaluations, for the 1 cells that are not done" in plan_text(tmp_path, command)
    other = plan_text(tmp_path, command, factors={"ratio": [1e-3]})
    assert "at most  12 evaluations, about" in other, "the folder is of another protocol"


def test_a_plan_says_what_is_made(tmp_path: Path, command: Command) -> None:
    design = {"exclude": [{"style_layers": "one", "ratio": 1e-4}]}
    display, output = {"ppd": 10}, {"equalize_luminance": 0.3, "aperture": "circle"}
    out = plan_text(tmp_path, command, display=display, output=output, accept={"clipping": 0.25}, factors={})
    assert "size     32 × 32 px (3.2° × 3.2° of visual angle)" in out
    assert "output   aperture circle, equalize_luminance 0.3" in out and "accept   clipping 0.25" in out
    (tmp_path / "q.toml").write_text(tomli_w.dumps({**document(), **design}))
    assert "without  combinations of levels: 1 excluded" in command("plan", tmp_path / "q.toml")[1]
    sampled = {**document(), "sample": {"count": 1, "balance": ["ratio"]}}
    (tmp_path / "q.toml").write_text(tomli_w.dumps(sampled))
    assert "without  combinations of levels: 2 not sampled" in command("plan", tmp_path / "q.toml")[1]


def test_a_plan_with_titration_has_no_ratio(tmp_path: Path, command: Command) -> None:
    titrated = {"titrate": "ssim_content", "titrate_value": 0.3}
    out = plan_text(tmp_path, command, factors={"ratio": None}, synthesis=titrated)
    assert (
        "ratio    is found by titration: titrate ssim_content, titrate_value 0.3" in out
        and "paper's formulas" not in out
    )


def test_a_plan_tells_textures_that_are_the_same(tmp_path: Path, command: Command) -> None:
    images = {"content": {"cat": "skimage:chelsea", "moon": "skimage:moon"}}
    out = plan_text(tmp_path, command, images=images, factors={"ratio": [0, 1e-4]})
    assert "note     4 cells are style only" in out
    assert "style only" not in plan_text(tmp_path, command, factors={"ratio": [0, 1e-4]}), "there is one content"
    coloured = plan_text(tmp_path, command, images=images, factors={"ratio": [0, 1e-4], "colour": ["luminance"]})
    assert "style only" not in coloured, "colours come from the content image"


def test_an_estimate_is_a_guess_until_cells_of_that_kind_have_run(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STIMKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.chdir(tmp_path)
    settings = small_plan().cells[0].settings
    assert "a guess until such cells have run here" in plan_text(tmp_path, command)
    cost.remember_rate("cpu", settings, 2, 1e9)
    measured = plan_text(tmp_path, command)
    assert "as such cells ran here" in measured
    assert "a guess" in plan_text(tmp_path, command, synthesis={"size": 64}), "another size"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "a guess" in plan_text(tmp_path, command), "another number of threads"
    rate, known = cost.rate("cpu", "float32", (64, 64))
    assert (rate, known) == (1e9, False), "the closest kind is a better guess than none"
    assert cost.rate("cpu", "float64", (32, 32)) == (cost.TYPICAL_RATE["cpu"] * (os.cpu_count() or 1), False)


def test_options_that_agree_are_accepted(protocol: Path, tmp_path: Path, command: Command) -> None:
    code, _, err = command("run", protocol, "--device", "cuda", "--workers", "2", "--out", tmp_path / "run")
    assert code == 2 and "--device cuda contradicts --workers" in err
    code, _, err = command("run", protocol, "--device", "cpu", "--devices", "cuda:0", "--out", tmp_path / "run")
    assert code == 2 and "--device cpu contradicts --devices cuda:0" in err
    code, _, err = command("run", protocol, "--device", "cuda", "--devices", "cuda:0,cuda:0", "--out", tmp_path / "run")
    assert code == 2 and "a device is named twice" in err, "which is the next thing that is looked at"


def test_a_log_has_a_line_every_half_minute(capfd: pytest.CaptureFixture[str]) -> None:
    seconds = iter(range(-5, 1000, 5))
    show = LinePrinter(Clock(), lambda: next(seconds))
    progress = Progress(evaluation=100, max_evaluations=500, running=3, batch=3, relative_loss=0.1)
    for _ in range(20):
        show(Event(1, 4, running=(Running(progress, 3),)))
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 3 and all(line.startswith("[1/4] 3 cells at evaluation 100 of at most 500") for line in lines)
