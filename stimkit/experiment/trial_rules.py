"""What can be wrong with a trial design: rules that relate its keys, and the names that columns of its lists have."""

from __future__ import annotations

from typing import Any

from stimkit.documents.messages import BrokenRule, as_list, as_table
from stimkit.experiment.pages import check_pages

SHOWN: dict[str, int] = {
    "single": 1, "pair": 2, "triplet": 3, "2afc": 2, "abx": 3, "match": 3, "similarity": 3, "mlds-triad": 3,
    "mlds-quad": 4, "adjust": 1,
}  # fmt: skip
"""Stimuli of a trial, by form; that which is adjusted comes from a series."""
NEEDS = {
    "pair": "differ", "triplet": "differ", "abx": "differ", "similarity": "differ", "2afc": "along",
    "mlds-triad": "along", "mlds-quad": "along", "match": "match", "adjust": "along",
}  # fmt: skip
"""The key of `[trial]` that says in what the stimuli of a trial differ."""
TAKES = {
    "differ": ("pair", "triplet", "abx", "similarity"),
    "free": ("pair", "triplet", "abx", "similarity", "2afc", "mlds-triad", "mlds-quad", "match"),
    "along": ("2afc", "mlds-triad", "mlds-quad", "adjust"),
    "closed": ("adjust",),
    "match": ("match",),
    "distract": ("match",),
}
"""The forms that keys of `[trial]` are for."""
ADAPTIVE = ("single", "2afc")
ONE_AFTER_THE_OTHER = ("pair", "2afc", "abx", "match")
HAS_RIGHT_PLACE = ("triplet", "2afc", "abx", "match")
LIST_COLUMNS = (
    "participant", "group", "block", "block_label", "trial", "kind", "repetition", "answer", "answer_index", "series",
    "start",
)  # fmt: skip
RESPONSE_COLUMNS = (
    "choice", "correct", "rt", "response", "stimulus", "stopped", "response_file", "session", "chosen", "chosen_id",
    "moves", "estimate",
)  # fmt: skip
MEASURED_COLUMNS = (
    "fixation_ms", "sample_ms", "onset_ms", "stimulus_ms", "mask_ms", "frame_ms", "fixation_s", "stimulus_s",
    "dropped_frames", "frame_rate", "device_pixel_ratio", "window_width_px", "window_height_px", "pixels_per_degree",
    "viewing_distance_cm", "image_scale", "fits_window", "time_elapsed", "trial_index", "trial_type",
)  # fmt: skip
PLACE_COLUMNS = ("position", "x_deg", "y_deg")
TAKEN = (*LIST_COLUMNS, *RESPONSE_COLUMNS, *MEASURED_COLUMNS, *PLACE_COLUMNS, "stimulus_id", "stim_file")
"""Names of columns that questions cannot have."""


def check_trial_design(document: dict[str, Any]) -> list[BrokenRule]:
    """What is wrong between the keys of a document."""
    found: list[BrokenRule] = []
    trial, blocks = as_table(document, "trial"), as_table(document, "blocks")
    form = trial.get("form", "single")
    found += _check_form(form, trial, document)
    for section in ("trial", "practice", "catch"):
        own = as_table(document, section)
        both = set(map(str, as_list(own.get("differ")))) & set(map(str, as_list(own.get("free"))))
        found += [((section, "free"), f"{name} is in differ") for name in sorted(both)]
        if section != "trial":
            found += [((section, key), _not_for(key)) for key in ("differ", "free") if _is_not_for(key, own, form)]
    if blocks.get("by") and blocks.get("count"):
        found.append((("blocks", "count"), "give either by or count"))
    found += _check_place(as_table(document, "place"), document)
    found += _check_screen(as_table(document, "screen"), document)
    found += check_pages(document, TAKEN)
    timing = as_table(document, "timing")
    if timing.get("mask") and not timing.get("stimulus"):
        found.append((("timing", "mask"), "follows the stimuli, which are there until the answer: give stimulus"))
    response = as_table(document, "response")
    choices, keys = response.get("choices"), as_list(response.get("keys"))
    if keys and isinstance(choices, list) and len(keys) != len(choices):
        found.append((("response", "keys"), f"there are {len(keys)} keys for {len(choices)} choices"))
    for index, choice in enumerate(as_list(choices)):
        if isinstance(choice, str) and not (choice and choice.isprintable()):
            found.append((("response", "choices", index), "must be text that can be read"))
    for name, given in (("keys", keys), ("choices", as_list(choices))):
        twice = sorted({str(part) for part in given if given.count(part) > 1})
        found += [(("response", name), f"{one} is given twice") for one in twice]
    if response.get("correct") and form in HAS_RIGHT_PLACE:
        found.append((("response", "correct"), f"the right answer of the form {form} is a place"))
    if form == "adjust":
        keys_of_answers = ("choices", "keys", "correct")
        found += [
            (("response", key), "is not for adjust, whose answer is a step")
            for key in response
            if key in keys_of_answers
        ]
    return found


def _is_not_for(key: str, table: dict[str, Any], form: Any) -> bool:
    return bool(table.get(key)) and form in SHOWN and form not in TAKES[key]


def _not_for(key: str) -> str:
    *forms, last = TAKES[key]
    return f"is for {', '.join(forms)} and {last}" if forms else f"is for {last}"


def _check_form(form: Any, trial: dict[str, Any], document: dict[str, Any]) -> list[BrokenRule]:
    timing, adaptive = as_table(document, "timing"), "adaptive" in document
    found: list[BrokenRule] = [(("trial", key), _not_for(key)) for key in TAKES if _is_not_for(key, trial, form)]
    needed = NEEDS.get(form) if isinstance(form, str) else None
    if adaptive:
        found = [one for one in found if one[0] != ("trial", "along")]
        needed = "along"
        if form not in ADAPTIVE:
            found.append((("adaptive",), f"is for {' and '.join(ADAPTIVE)}"))
        found += [(("trial", key), "is [adaptive] count") for key in ("count", "repetitions") if key in trial]
        found += [((key,), "does not go with [adaptive]") for key in ("practice", "catch") if key in document]
    if needed and not trial.get(needed):
        words = {
            "differ": f"name the factors in which the stimuli of a {form} differ",
            "along": f"name the series, or the factor of numbers, that {form} goes along",
            "match": "name the factors that the right candidate shares with the sample",
        }
        found.append((("trial", needed), words[needed]))
    if timing.get("sample") and form not in ONE_AFTER_THE_OTHER:
        found.append((("timing", "sample"), f"is for {', '.join(ONE_AFTER_THE_OTHER)}"))
    if timing.get("delay") and not timing.get("sample"):
        found.append((("timing", "delay"), "is between stimuli that are shown one after the other: give sample"))
    if form == "adjust":
        found += [(("timing", key), "is not for adjust") for key in ("stimulus", "mask", "response") if timing.get(key)]
    return found


def _check_screen(screen: dict[str, Any], document: dict[str, Any]) -> list[BrokenRule]:
    keys = ("viewing_distance", "width", "pixels")
    given = [key for key in keys if key in screen]
    if "screen" not in document or (screen.get("calibrate") is True and not given):
        return []
    if screen.get("calibrate") is True:
        return [(("screen", given[0]), "is measured where calibrate is true; leave it out")]
    return [(("screen", key), "is needed, or calibrate = true in a browser") for key in keys if key not in given]


def _check_place(place: dict[str, Any], document: dict[str, Any]) -> list[BrokenRule]:
    if "place" not in document:
        return []
    named, around = place.get("positions"), place.get("eccentricity")
    if [bool(named), around is not None, place.get("as_made") is True].count(True) != 1:
        return [(("place",), "needs either positions, or eccentricity and angle, or as_made")]
    if (around is None) != (not place.get("angle")):
        return [(("place", "angle"), "belongs to eccentricity: a direction for each position")]
    twice = [one for one in as_list(place.get("angle")) if as_list(place.get("angle")).count(one) > 1]
    return [(("place", "angle"), f"{one} is given twice") for one in sorted(set(twice))]
