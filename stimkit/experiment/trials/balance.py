"""How balanced trial lists are: counts of what participants see, where, and in which order."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence

import pandas as pd

from stimkit.experiment.trials.lists import TrialLists
from stimkit.experiment.trials.showing import PRACTICE

BALANCE_COLUMNS = ("measure", "of", "level", "total", "lowest", "highest")


def count_balance(lists: TrialLists) -> pd.DataFrame:
    """Counts in the main trials: one row for each, in all and the lowest and highest of a participant.

    Measures are `trials` (stimuli shown, by level of a factor), `place` (by place in the trial, too), `position`
    (single stimuli, by position on the screen, and by that and level of a factor), `answer` (right answers), `block`
    (blocks with a label, by place in the order), `block_after` (by the block before), `stimulus` (uses of a stimulus;
    lowest and highest are over stimuli), `arrangement` (showings of the same stimuli in the same places; lowest
    and highest are over these) and `longest_run` (of trials that share a level; total is the longest
    of all). Rows of `longest_run` count catch trials, too.
    """
    main = lists.table[lists.table["kind"] == "main"]
    rows = [
        *_levels(lists, main),
        *_positions(lists, main),
        *_counted("answer", "", _by_participant(main[main["answer"] != ""], "answer")),
        *_blocks(main),
        *_stimuli(lists, main),
        *_arrangements(lists, main),
        *_runs(lists),
    ]
    return pd.DataFrame(rows, columns=list(BALANCE_COLUMNS))


def note_imbalance(lists: TrialLists) -> list[str]:
    """What keeps the lists from balance, in words."""
    notes = []
    count, cycle = lists.design.participants, lists.cycle
    if count % cycle:
        notes.append(
            f"groups and orders of blocks are balanced after every {cycle} participants, and {count} is not a multiple"
            " of that"
        )
    if lists.design.trial.positions == "balanced":
        notes += _note_places(lists)
    if lists.held_out:
        some = ", ".join(lists.held_out[:3]) + (", …" if len(lists.held_out) > 3 else "")
        notes.append(f"practice keeps {len(lists.held_out)} stimuli for itself ({some}); {lists.left} are left")
    return notes


def _note_places(lists: TrialLists) -> Iterator[str]:
    """Of how many trials places are not equally frequent, within one, over all their showings."""
    main = lists.table[lists.table["kind"] == "main"]
    counts = _place_counts(lists, main)
    options = lists.answers.form.options
    uneven = sum(max(one.values()) - (min(one.values()) if len(one) == options else 0) > 1 for one in counts.values())
    if uneven:
        yield (
            f"places are equally frequent, within one, for every participant, and over the showings of"
            f" {len(counts) - uneven:,} of {len(counts):,} trials"
        )


BalanceRow = tuple[str, str, str, int, int, int]
BalanceCounts = dict[str, Counter[Hashable]]


def _counted(measure: str, of: str, counts: BalanceCounts) -> Iterator[BalanceRow]:
    levels = sorted({level for counter in counts.values() for level in counter}, key=str)
    for level in levels:
        each = [counter[level] for counter in counts.values()]
        yield measure, of, str(level), sum(each), min(each), max(each)


def _by_participant(trials: pd.DataFrame, *columns: str) -> BalanceCounts:
    """How often each participant has each value, in any of the columns."""
    return {
        str(participant): Counter(value for column in columns for value in rows[column])
        for participant, rows in trials.groupby("participant")
    }


def _columns(lists: TrialLists, name: str) -> list[str]:
    shown = lists.design.trial.shown
    return [name] if shown == 1 else [f"{name}_{place}" for place in range(1, shown + 1)]


def _levels(lists: TrialLists, main: pd.DataFrame) -> Iterator[BalanceRow]:
    for name in lists.factors:
        columns = _columns(lists, name)
        yield from _counted("trials", name, _by_participant(main, *columns))
        if name in lists.design.trial.differ:
            for column in columns:
                yield from _counted("place", column, _by_participant(main, column))


def _positions(lists: TrialLists, main: pd.DataFrame) -> Iterator[BalanceRow]:
    """Where single stimuli are; several have the positions of their places."""
    if "position" not in main:
        return
    yield from _counted("position", "", _by_participant(main, "position"))
    for name in lists.factors:
        if main[name].nunique() > 1:
            both = main.assign(both=main["position"] + ", " + main[name].astype(str))
            yield from _counted("position", name, _by_participant(both, "both"))


def _blocks(main: pd.DataFrame) -> Iterator[BalanceRow]:
    order = main.drop_duplicates(["participant", "block"])
    if order["block"].max() == 1:
        return
    for place, blocks in order.groupby("block"):
        for label, count in sorted(Counter(blocks["block_label"]).items()):
            yield "block", str(place), label, count, count, count
    pairs: Counter[tuple[str, str]] = Counter()
    for _, blocks in order.groupby("participant"):
        pairs.update(itertools.pairwise(blocks["block_label"]))
    for (before, after), count in sorted(pairs.items()):
        yield "block_after", before, after, count, count, count


def _stimuli(lists: TrialLists, main: pd.DataFrame) -> Iterator[BalanceRow]:
    uses = Counter(stimulus_id for column in _columns(lists, "stimulus_id") for stimulus_id in main[column])
    yield "stimulus", "", "", sum(uses.values()), min(uses.values()), max(uses.values())


def _arrangements(lists: TrialLists, main: pd.DataFrame) -> Iterator[BalanceRow]:
    """Of pairs by which is on the left, of triplets by where the odd one is."""
    options = lists.answers.form.options
    if options == 1 or lists.design.trial.positions == "fixed":
        return
    counts = _place_counts(lists, main).values()
    each = [counter[place] for counter in counts for place in _all_places(counter, options)]
    yield "arrangement", "", "", sum(each), min(each), max(each)


def _place_counts(lists: TrialLists, main: pd.DataFrame) -> dict[Hashable, Counter[Hashable]]:
    """How often each trial was shown with its stimuli in which places."""
    form = lists.answers.form
    counts: dict[Hashable, Counter[Hashable]] = defaultdict(Counter)
    if form.options == 1:
        return counts
    for row in main[[*_columns(lists, "stimulus_id"), "answer_index"]].itertuples(index=False):
        *ids, answer = row
        counts[tuple(sorted(ids))][form.counted_by(tuple(ids)) if form.right is None else answer] += 1
    return counts


def _all_places(counts: Counter[Hashable], shown: int) -> list[Hashable]:
    """Those that were seen, and others in place of those that were not."""
    return [*counts, *(f"unseen {one}" for one in range(shown - len(counts)))]


def _runs(lists: TrialLists) -> Iterator[BalanceRow]:
    shown = lists.table[lists.table["kind"] != PRACTICE]
    for name in lists.design.sequence.runs:
        columns = _columns(lists, name)
        longest = [
            longest_run([set(levels) for levels in rows[columns].itertuples(index=False)])
            for _, rows in shown.groupby("participant")
        ]
        yield "longest_run", name, "", max(longest), min(longest), max(longest)


def longest_run(trials: Sequence[set[Hashable]]) -> int:
    """The longest run of trials that all share a level."""
    longest, running = 0, Counter[Hashable]()
    for levels in trials:
        running = Counter({level: running[level] + 1 for level in levels})
        longest = max(longest, *running.values())
    return longest
