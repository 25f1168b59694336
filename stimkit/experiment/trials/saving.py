"""Trial lists as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stimkit.experiment.trials.balance import count_balance, note_imbalance
from stimkit.experiment.trials.forms import describe_form
from stimkit.experiment.trials.lists import TrialLists
from stimkit.files import whole_folder, write_json
from stimkit.records.tables import csv_bytes
from stimkit.version import __version__


def save_lists(lists: TrialLists, out: str | Path) -> None:
    """Write trial lists into a new folder.

    trials.csv has the trials of all participants, participants/ a file of each, balance.csv what `balance` counts,
    design.toml the design as given, and trials.json the answers, keys and versions. Raises `UsageError` where the
    folder is there already, `StorageError` where it cannot be written.
    """
    with whole_folder(Path(out)) as folder:
        (folder / "trials.csv").write_bytes(csv_bytes(lists.table))
        (folder / "participants").mkdir()
        for participant, rows in lists.table.groupby("participant"):
            (folder / "participants" / f"{participant}.csv").write_bytes(csv_bytes(rows))
        (folder / "balance.csv").write_bytes(csv_bytes(count_balance(lists)))
        (folder / "design.toml").write_text(lists.design.text, encoding="utf-8")
        write_json(folder / "trials.json", describe_lists(lists))


def describe_lists(lists: TrialLists) -> dict[str, Any]:
    """What is the same for all trials, as JSON values."""
    design = lists.design
    return {
        "schema": 1,
        "name": design.name,
        "form": design.trial.form,
        "prompt": design.response.prompt,
        **describe_form(design),
        "closed": design.trial.closed,
        "adaptive": design.adaptive
        and {**design.adaptive.model_dump(mode="json"), "guess": 0.5 if design.trial.form == "2afc" else 0.0},
        "series": {name: list(steps) for name, steps in lists.series.items()},
        "choices": list(lists.answers.choices),
        "keys": list(lists.answers.keys),
        **{f"{key}_s": seconds for key, seconds in design.timing.model_dump().items()},
        **lists.layout.describe(),
        "save": design.save.model_dump(),
        "pages": [page.model_dump(mode="json", exclude={"file"}) for page in design.pages],
        "words": dict(design.words.table),
        "feedback": design.practice is not None and design.practice.feedback,
        "factors": list(lists.factors),
        "participants": design.participants,
        "balanced_after": lists.cycle,
        "notes": note_imbalance(lists),
        "stimkit_version": __version__,
    }
