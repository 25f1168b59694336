"""What cannot be planned, and what follows from degrees of visual angle."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from stimkit.errors import ProtocolError, RunFolderError
from stimkit.planning.checks import check_cells
from stimkit.planning.resolved import plan_from_resolved, resolve
from tests.conftest import small_plan


@pytest.mark.parametrize(
    ("display", "size", "expected"),
    [
        ({"visual_size": 3.2, "ppd": 10}, None, ((32, 32), 10.0)),
        ({"visual_size": [2.0, 4.0], "ppd": 16}, None, ((32, 64), 16.0)),
        ({"visual_size": 4}, 48, ((48, 48), 12.0)),
        ({"ppd": 20}, 40, ((40, 40), 20.0)),
        ({"visual_size": 3.21, "ppd": 10}, 32, ((32, 32), 10.0)),
    ],
)
def test_of_size_degrees_and_density_two_give_the_third(display: Any, size: Any, expected: Any) -> None:
    settings = small_plan(display=display, synthesis={"size": size}).cells[0].settings
    assert (settings.size, settings.ppd) == expected
    assert settings.degrees == (expected[0][0] / expected[1], expected[0][1] / expected[1])


def test_density_alone_changes_no_id_but_with_an_aperture_it_does() -> None:
    assert small_plan(display={"ppd": 20}).by_id.keys() == small_plan().by_id.keys()
    circle = {"aperture": "circle", "aperture_diameter": 1.0}
    one, other = (small_plan(display={"ppd": ppd}, output=circle) for ppd in (20, 25))
    assert not one.by_id.keys() & other.by_id.keys()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"output": {"aperture": "circle", "aperture_ramp": 0.2}},
            "aperture_ramp: is in degrees of visual angle, which needs ppd",
        ),
        (
            {"output": {"aperture": "gaussian"}, "display": {"ppd": 10}},
            "aperture_sigma: is needed by a gaussian aperture",
        ),
        ({"output": {"aperture_ramp": 0.2}}, "aperture_ramp: is given without an aperture"),
        (
            {"output": {"aperture": "circle", "aperture_diameter": 4}, "display": {"ppd": 10}},
            "is 40 px, more than the 32 px",
        ),
        (
            {"output": {"aperture": "circle", "aperture_ramp": 2}, "display": {"ppd": 10}},
            "is wider than half of the aperture",
        ),
        (
            {"output": {"equalize_luminance": 0.5, "equalize_contrast": 1.5}},
            "no image of mean luminance 0.5 has an RMS contrast above 1",
        ),
        (
            {"output": {"equalize_histogram": "styles", "equalize_luminance": 0.5}},
            "sets mean and contrast of luminance as well",
        ),
        (
            {"output": {"equalize_luminance": "image"}},
            'equalize_luminance: must be a number between 0 and 1, "content"',
        ),
        ({"output": {"equalize_luminance": 1.5}}, "equalize_luminance: must be a number between 0 and 1"),
        (
            {"output": {"equalize_spectrum": "content"}, "images": {"content": None}, "factors": {"ratio": [0]}},
            "there is no content image",
        ),
        (
            {"synthesis": {"colour": "covariance"}, "images": {"content": None}, "factors": {"ratio": [0]}},
            "needs a content and a style",
        ),
        (
            {"display": {"visual_size": 3.2, "ppd": 20}},
            "3.2 × 3.2 degrees at 20 pixels per degree are 64 × 64 px, but size is 32 × 32",
        ),
        ({"display": {"visual_size": 3.2}, "synthesis": {"size": None}}, "needs ppd, or the size in pixels"),
        ({"display": {"visual_size": 3.2}, "factors": {"size": [32]}}, "size is a factor; give ppd only"),
        ({"display": {"ppd": 0}}, "display.ppd: must be > 0 (got 0)"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(sections: Any, message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        small_plan(**sections)
    assert message in str(caught.value)


def test_an_aperture_without_a_pixel_is_refused() -> None:
    with pytest.raises(ProtocolError, match="aperture_diameter: lets no pixel through"):
        small_plan(display={"ppd": 10}, output={"aperture": "circle", "aperture_diameter": 0.05})


def test_combinations_are_bounded() -> None:
    """10^11 of them are not counted one by one."""
    levels = {"rtol": [10.0**-n for n in range(1, 1001)], "window": list(range(2, 502)), "replicate": 100_000}
    with pytest.raises(ProtocolError, match=r"have 200,000,000,000 combinations.* at most 2,000,000"):
        small_plan(factors=levels | {"rtol": [1e-9 * n for n in range(1, 1001)]})


def test_a_forged_number_in_a_lock_takes_no_time() -> None:
    lock = json.loads(json.dumps(resolve(small_plan())))
    lock["protocol"]["factors"]["replicate"] = 100_000
    lock["protocol"]["factors"]["rtol"] = [1e-9 * n for n in range(1, 1001)]
    with pytest.raises(RunFolderError, match="combinations"):
        plan_from_resolved(lock)


def test_two_cells_with_one_id_by_chance_are_told_from_two_that_are_the_same() -> None:
    plan = small_plan()
    one, other, *_ = plan.cells
    with pytest.raises(ProtocolError, match=f"two of 2 cells have the id {one.id} by chance: give another seed"):
        check_cells([one, replace(other, id=one.id)], plan.protocol, plan.inputs)
    with pytest.raises(ProtocolError, match="are the same image or value"):
        check_cells([one, replace(other, id=one.id, seed=one.seed)], plan.protocol, plan.inputs)


def test_messages_name_some_of_many_problems() -> None:
    with pytest.raises(ProtocolError) as stopped:
        small_plan(synthesis={f"key{number}": 1 for number in range(500)})
    assert len(stopped.value.problems) == 500
    assert str(stopped.value).count("unknown key") == 50 and "and 450 more" in str(stopped.value)
