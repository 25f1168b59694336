"""Where stimuli are, in degrees: balanced, on the screen, and told where it cannot be."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

import stimkit
from stimkit.errors import ProtocolError
from stimkit.experiment.export.formats import export
from stimkit.experiment.trials.balance import count_balance
from stimkit.experiment.trials.design import TrialDesign
from stimkit.experiment.trials.lists import TrialLists, make_lists
from stimkit.experiment.trials.placement import Screen
from stimkit.images.reading import read_source
from stimkit.records.schema import Record
from stimkit.runfolder.run import Run
from tests.conftest import changed, small_plan

HEAD = 'schema = 1\nname = "where"\nparticipants = 4\n'
SCREEN = "[screen]\nviewing_distance = 57.3\nwidth = 40\npixels = [1280, 1024]\n"


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Eight stimuli of 32 px and 2 degrees."""
    folder = tmp_path_factory.mktemp("placed") / "run"
    factors = {"ratio": [0, 1e-5, 1e-4, 1e-3]}
    stimkit.run(
        small_plan(display={"ppd": 16.0}, factors=factors, synthesis={"max_evaluations": 0}), folder, device="cpu"
    )
    return stimkit.open_run(folder)


@pytest.fixture(scope="module")
def records(placed: Run) -> list[Record]:
    return list(placed.records.values())


def lists(records: list[Record], text: str) -> TrialLists:
    return make_lists(records, TrialDesign.from_toml(HEAD + text))


def test_single_stimuli_have_each_position_equally_often(records: list[Record]) -> None:
    table = lists(records, "[place]\neccentricity = 5\nangle = [0, 90, 180, 270]\n").table
    for _, rows in table.groupby("participant"):
        assert rows["position"].value_counts().tolist() == [2, 2, 2, 2]
    assert set(table.groupby(["stimulus_id", "position"]).size()) == {1}, "over the participants, each at each"
    for position, x, y in zip(table["position"], table["x_deg"], table["y_deg"], strict=True):
        angle = math.radians(float(position.removesuffix("deg")))
        assert (x, y) == pytest.approx((5 * math.cos(angle), 5 * math.sin(angle)))


def test_stimuli_of_a_pair_have_the_positions_in_their_order(records: list[Record]) -> None:
    text = '[trial]\nform = "pair"\ndiffer = ["style_layers"]\n[place.positions]\nleft = [-4, 1]\nright = [4, 1]\n'
    table = lists(records, text).table
    assert set(table["position_1"]) == {"left"} and set(table["position_2"]) == {"right"}
    assert set(table["x_deg_1"]) == {-4} and set(table["y_deg_2"]) == {1}
    assert set(table["stimulus_id_1"]) == set(table["stimulus_id_2"]), "which is on the left is balanced"


def test_stimuli_of_several_sizes_in_degrees_are_not_shown_at_one_scale(records: list[Record]) -> None:
    """Those that are shown count, whatever else the run has."""
    finer = [
        changed(one, settings=one.settings.model_copy(update={"ppd": 32.0})) if number % 2 else one
        for number, one in enumerate(records)
    ]
    with pytest.raises(ProtocolError, match="screen: shows images at one scale, and these are for 16 and 32 pixels"):
        lists(finer, SCREEN)
    few = "[stimuli]\nwhere = 'style_layers == \"one\"'\n"
    mixed = [
        one if one.levels["style_layers"] == "one" else changed(one, settings=finer[1].settings) for one in records
    ]
    assert lists(mixed, SCREEN + few).layout.image_ppd == 16


def test_positions_change_nothing_else(records: list[Record]) -> None:
    plain = lists(records, "").table
    at_one = lists(records, "[place.positions]\nup = [0, 4]\n").table
    assert at_one.drop(columns=["position", "x_deg", "y_deg"]).equals(plain)


def test_pixels_per_degree_of_a_screen() -> None:
    """At 57.3 cm, a centimetre is a degree."""
    screen = Screen(viewing_distance=57.29, width=40.0, pixels=(1280, 1024))
    assert screen.ppd == pytest.approx(32, rel=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[place]\neccentricity = 0.5\nangle = [0]\n", "of 2 × 2 degrees there would cover fixation"),
        ("[place]\neccentricity = 19.5\nangle = [0]\n" + SCREEN, "does not fit the screen of 39.99 × 31.99 degrees"),
        ("[place]\neccentricity = 15\nangle = [90]\nfixation = [0, 3]\n" + SCREEN, "does not fit the screen"),
        ("[place]\n", "needs either positions, or eccentricity and angle, or as_made"),
        ("[place]\neccentricity = 3\n", "a direction for each position"),
        ("[place]\neccentricity = 3\nangle = [0, 0]\n", "0 is given twice"),
        ("[timing]\nmask = 0.1\n", "which are there until the answer: give stimulus"),
        (SCREEN + "refresh = 75\n[timing]\nstimulus = 0.5\n", "0.5 s are 37.5 frames at 75 Hz: try 0.506667"),
        (
            '[trial]\nform = "pair"\ndiffer = ["style_layers"]\n[place.positions]\na = [-4, 1]\nb = [-3, 2]\n',
            "at a and b would overlap",
        ),
        (
            '[trial]\nform = "pair"\ndiffer = ["style_layers"]\n[place.positions]\na = [-4, 1]\n',
            "1 positions for the 2 stimuli",
        ),
    ],
)
def test_what_cannot_be_shown_is_told_before(records: list[Record], text: str, message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        lists(records, text)
    assert message in str(caught.value).replace("\n", " ")


def test_degrees_need_pixels_per_degree(small_run: Run) -> None:
    with pytest.raises(ProtocolError, match="needs one ppd"):
        lists(list(small_run.records.values()), "[place]\neccentricity = 3\nangle = [0]\n")


def test_positions_are_counted(records: list[Record]) -> None:
    found = lists(records, "[place]\neccentricity = 6\nangle = [0, 180]\n")
    counts = count_balance(found)
    own = counts[(counts["measure"] == "position") & (counts["of"] == "")].set_index("level")["total"]
    main = found.table[found.table["kind"] == "main"]
    assert own.to_dict() == main["position"].value_counts().to_dict() and set(own.index) == {"0deg", "180deg"}
    both = counts[(counts["measure"] == "position") & (counts["of"] == "style_layers")].set_index("level")["total"]
    assert both["0deg, one"] == ((main["position"] == "0deg") & (main["style_layers"] == "one")).sum()


def test_stimuli_are_where_their_windows_assume_fixation(records: list[Record]) -> None:
    """Also where that is within the stimulus; and nowhere else without being told."""
    given = [(8.0, 0.0), (-8.0, 0.0), (0.5, -0.25)]
    made = [
        one.model_copy(update={"settings": one.settings.model_copy(update={"fixation_x": x, "fixation_y": y})})
        for one, (x, y) in zip(records, itertools.cycle(given))
    ]
    table = lists(made, "[place]\nas_made = true\n").table
    expected = {one.stimulus_id: (-one.settings.fixation_x, -one.settings.fixation_y) for one in made}
    assert [*zip(table["x_deg"], table["y_deg"], strict=True)] == [expected[one] for one in table["stimulus_id"]]
    assert set(table["position"]) == {"as_made"}
    for text in ("", "[place]\neccentricity = 8\nangle = [0]\n"):
        with pytest.raises(ProtocolError, match=r"assume its middle at \[.*\] from fixation: give as_made = true"):
            lists(made, text)
    first = [made[0]]
    assert set(lists(first, "[place.positions]\nleft = [-8, 0]\n").table["x_deg"]) == {-8}
    with pytest.raises(ProtocolError, match="is for trials of one stimulus"):
        lists(made, '[place]\nas_made = true\n[trial]\nform = "pair"\ndiffer = ["style_layers"]\n')
    with pytest.raises(ProtocolError, match="does not fit the screen"):
        lists(made, "[place]\nas_made = true\nfixation = [-15, 0]\n" + SCREEN)


def test_a_position_at_fixation_is_no_mistake(records: list[Record]) -> None:
    table = lists(records, "[place.positions]\nfovea = [0, 0]\n").table
    assert set(table["position"]) == {"fovea"}


def test_masks_have_the_amplitudes_of_their_stimuli(placed: Run, tmp_path: Path) -> None:
    """And other phases: of another picture, but as bright and of as much contrast."""
    design = TrialDesign.from_toml(HEAD + "[timing]\nstimulus = 0.2\nmask = 0.1\n[response]\nchoices = ['a', 'b']\n")
    export(placed.path, "psychopy", tmp_path / "out", design=design)
    for record in placed.records.values():
        name = record.filename
        shown = read_source(name, placed.path / "stimuli").pixels.astype(float)
        mask = read_source(name, tmp_path / "out/masks").pixels.astype(float)
        before, after = (np.abs(np.fft.fft2(one[:, :, 1])).ravel()[1:] for one in (shown, mask))
        assert np.corrcoef(before, after)[0, 1] > 0.9 and np.abs(shown - mask).mean() > 5
        assert abs(shown.mean() - mask.mean()) < 2
