"""Trial lists: what is promised about them is counted."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stimkit.errors import ProtocolError, UsageError
from stimkit.experiment.trials.assignment import latin, williams
from stimkit.experiment.trials.balance import count_balance, longest_run, note_imbalance
from stimkit.experiment.trials.design import TrialDesign
from stimkit.experiment.trials.lists import TrialLists, make_lists
from stimkit.experiment.trials.saving import save_lists
from stimkit.experiment.trials.sequence import Impossible, arrange, keeps_rules
from stimkit.records.schema import Record
from stimkit.records.selection import select
from stimkit.runfolder.run import Run
from tests.conftest import ROOT, changed

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def records(small_run: Run) -> list[Record]:
    """Stimuli of 4 contents × 3 styles × 2 replicates."""
    return made_up(small_run, 4, 3, 2)


def made_up(run: Run, contents: int, styles: int, replicates: int = 1) -> list[Record]:
    """Records of a design, from one that is real."""
    template = next(iter(run.records.values()))
    found = []
    cells = itertools.product(range(contents), range(styles), range(replicates))
    for number, (content, style, replicate) in enumerate(cells):
        levels = {"content": f"c{content}", "style": f"s{style}", "replicate": str(replicate + 1)}
        stimulus_id = f"s{number:010x}"
        found.append(
            changed(
                template,
                stimulus_id=stimulus_id,
                filename=f"{stimulus_id}.png",
                levels=levels,
                attributes={},
                replicate=replicate + 1,
            )
        )
    return found


def lists(records: Sequence[Record], text: str = "", participants: int = 6) -> TrialLists:
    return make_lists(records, design(text, participants))


def design(text: str = "", participants: int = 6) -> TrialDesign:
    return TrialDesign.from_toml(f"schema = 1\nname = 'test'\nparticipants = {participants}\n{text}")


def by_participant(found: TrialLists) -> list[pd.DataFrame]:
    return [rows for _, rows in found.table.groupby("participant")]


# --- squares --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(1, 9))
def test_squares_are_balanced(count: int) -> None:
    for square, times in ((latin(count), 1), (williams(count), 1 if count % 2 == 0 or count == 1 else 2)):
        assert all(sorted(row) == list(range(count)) for row in square)
        for column in zip(*square, strict=True):
            assert Counter(column) == dict.fromkeys(range(count), times)
    follows = Counter(pair for row in williams(count) for pair in itertools.pairwise(row))
    assert len(follows) == count * (count - 1) and len(set(follows.values())) <= 1, "each after each, equally often"


# --- orders ---------------------------------------------------------------------------------------------------


def levels_of(text: str) -> list[dict[str, frozenset[str]]]:
    return [{"style": frozenset(trial)} for trial in text.split()]


@pytest.mark.parametrize("seed", range(40))
def test_an_order_is_found_where_there_is_one(seed: int) -> None:
    generator = np.random.default_rng(seed)
    trials = levels_of(" ".join(generator.choice(list("aabc"), 6)))
    longest = int(generator.integers(1, 3))
    possible = any(keeps_rules(order, {"style": longest}) for order in itertools.permutations(trials))
    try:
        order = arrange(trials, {"style": longest}, generator)
    except Impossible:
        assert not possible
    else:
        assert (
            possible
            and sorted(order) == list(range(6))
            and keeps_rules([trials[one] for one in order], {"style": longest})
        )


def test_a_broken_rule_is_seen() -> None:
    assert keeps_rules(levels_of("a b a b"), {"style": 1})
    assert not keeps_rules(levels_of("a b b a"), {"style": 1}) and keeps_rules(levels_of("a b b a"), {"style": 2})
    assert not keeps_rules(levels_of("ab bc"), {"style": 1}), "a trial of several stimuli has several levels"
    assert not keeps_rules(levels_of("ab bc ba"), {"style": 2}) and keeps_rules(levels_of("ab bc ca"), {"style": 2})
    assert longest_run([set("ab"), set("bc"), set("ca"), set("c")]) == 3 and longest_run([set("a")]) == 1


def test_trials_before_count_and_orders_are_random() -> None:
    trials = levels_of("a a b b c c")
    first = [
        arrange(trials, {"style": 1}, np.random.default_rng(seed), before=levels_of("c a"))[0] for seed in range(60)
    ]
    assert set(first) == {2, 3, 4, 5}, "any but a, which was the last"
    orders = {tuple(arrange(trials, {"style": 1}, np.random.default_rng(seed))) for seed in range(60)}
    assert len(orders) > 50


# --- lists ----------------------------------------------------------------------------------------------------


def test_every_stimulus_so_often_and_nothing_twice_in_a_row(records: list[Record]) -> None:
    found = lists(records, "[trial]\nrepetitions = 2\n[sequence]\nno_repeat = ['content']\nmax_run = {style = 2}")
    for rows in by_participant(found):
        assert Counter(rows["stimulus_id"]) == dict.fromkeys((record.stimulus_id for record in records), 2)
        assert list(rows["trial"]) == list(range(1, 49))
        assert (rows["content"].to_numpy()[1:] != rows["content"].to_numpy()[:-1]).all()
        assert longest_run([{style} for style in rows["style"]]) <= 2
    orders = {tuple(rows["stimulus_id"]) for rows in by_participant(found)}
    assert len(orders) == 6


def test_lists_are_reproducible_and_keep_when_participants_are_added(records: list[Record]) -> None:
    text = "[trial]\ncount = 7\n[blocks]\ncount = 2\n[sequence]\nno_repeat = ['style']"
    few, more = lists(records, text, 3).table, lists(records, text, 9).table
    pd.testing.assert_frame_equal(few, more.head(len(few)))
    assert not few["stimulus_id"].equals(lists(records, "seed = 1\n" + text, 3).table["stimulus_id"])


def test_between_participants(records: list[Record]) -> None:
    found = lists(records, "[assign]\nbetween = ['style']", 7)
    assert Counter(rows["style"].unique().tolist()[0] for rows in by_participant(found)) == {"s0": 3, "s1": 2, "s2": 2}
    assert all(rows["style"].nunique() == 1 and len(rows) == 8 for rows in by_participant(found))
    assert set(found.table["group"]) == {"style-s0", "style-s1", "style-s2"} and found.cycle == 3
    assert (
        "every 3 participants, and 7 is not a multiple" in note_imbalance(found)[0]
        and note_imbalance(lists(records)) == []
    )


def test_latin_square_of_items_and_conditions(records: list[Record]) -> None:
    found = lists(records, "[assign]\nlatin = {items = 'content', conditions = 'style'}")
    seen: Counter[tuple[str, str]] = Counter()
    for rows in by_participant(found):
        pairs = set(zip(rows["content"], rows["style"], strict=True))
        assert len(pairs) == 4 and {content for content, _ in pairs} == {"c0", "c1", "c2", "c3"}
        seen.update(pairs)
    assert seen == dict.fromkeys(itertools.product(("c0", "c1", "c2", "c3"), ("s0", "s1", "s2")), 2)


def test_pairs_are_equal_but_for_what_differs(records: list[Record]) -> None:
    found = lists(records, "[trial]\nform = 'pair'\ndiffer = ['style']", 2).table
    assert (found["content_1"] == found["content_2"]).all() and (found["replicate_1"] == found["replicate_2"]).all()
    assert (found["style_1"] != found["style_2"]).all()
    assert len(found) == 2 * 4 * 2 * 3, "contents × replicates × pairs of styles"
    sides = Counter(zip(found["stimulus_id_1"], found["stimulus_id_2"], strict=True))
    assert all(sides[pair] == sides[pair[::-1]] == 1 for pair in sides), "the second sees each the other way round"
    free = lists(records, "[trial]\nform = 'pair'\ndiffer = ['style']\nfree = ['replicate']", 1).table
    assert len(free) == 4 * 3 * 4


def test_triplets_have_an_odd_one(records: list[Record]) -> None:
    text = "[trial]\nform = 'triplet'\ndiffer = ['style']\nfree = ['replicate']"
    found = lists(records, text, 3)
    for row in found.table.to_dict("records"):
        styles = [row[f"style_{place}"] for place in (1, 2, 3)]
        odd = styles.index(next(style for style in styles if styles.count(style) == 1))
        assert (
            row["answer"] == str(odd + 1)
            and row["answer_index"] == odd + 1
            and len({row[f"content_{place}"] for place in (1, 2, 3)}) == 1
        )
        assert len({row[f"stimulus_id_{place}"] for place in (1, 2, 3)}) == 3
    for rows in by_participant(found):
        assert len(rows) == 4 * 3 * 1 * 4 and set(Counter(rows["answer"]).values()) == {16}
    same = lists(records, "[trial]\nform = 'triplet'\ndiffer = ['style']", 1).table
    assert all(len({row[f"stimulus_id_{one}"] for one in (1, 2, 3)}) == 2 for row in same.to_dict("records"))


@pytest.mark.parametrize(("order", "cycle"), [("williams", 6), ("latin", 3), ("fixed", 1)])
def test_blocks_and_their_order(records: list[Record], order: str, cycle: int) -> None:
    found = lists(records, f"[blocks]\nby = ['style']\norder = '{order}'")
    orders = [tuple(rows["block_label"].unique()) for rows in by_participant(found)]
    assert all(
        (rows["style"] == rows["block_label"].str.removeprefix("style-")).all() for rows in by_participant(found)
    )
    assert found.cycle == cycle and len(set(orders)) == cycle
    counted = count_balance(found)
    places = counted[counted["measure"] == "block"]["total"]
    assert set(places) == ({6} if order == "fixed" else {2})
    if order == "williams":
        assert set(counted[counted["measure"] == "block_after"]["total"]) == {2}


def test_blocks_by_count_have_as_many_of_each(small_run: Run) -> None:
    found = lists(made_up(small_run, 4, 4, 4), "[blocks]\ncount = 4", 2)
    for rows in by_participant(found):
        for _, block in rows.groupby("block"):
            assert len(block) == 16 and set(Counter(zip(block["content"], block["style"], strict=True)).values()) == {1}


def test_a_part_of_the_trials_is_balanced_within_and_over_participants(small_run: Run) -> None:
    found = lists(made_up(small_run, 16, 16, 5), "[trial]\ncount = 64", 20)
    for rows in by_participant(found):
        assert rows["stimulus_id"].is_unique
        assert set(rows["content"].value_counts()) == set(rows["style"].value_counts()) == {4}
    counted = count_balance(found)
    uses = counted[counted["measure"] == "stimulus"].iloc[0]
    assert uses["total"] == 1280 and uses["highest"] <= 2, "1,280 showings of 1,280 stimuli"
    assert found.table["stimulus_id"].nunique() > 1200


def test_practice_and_catch_trials(records: list[Record]) -> None:
    records[0] = changed(records[0], role="untouched", levels={**records[0].levels, "style": ""})
    text = """
[practice]
count = 3
held_out = true
[catch]
count = 4
where = 'role == "untouched"'
answer = "5"
[sequence]
max_run = {style = 2}
"""
    found = lists(records, text)
    practised = set(found.table.loc[found.table["kind"] == "practice", "stimulus_id"])
    main = found.table[found.table["kind"] == "main"]
    assert len(practised) == 3 and not practised & set(main["stimulus_id"]) and main["role"].eq("main").all()
    for rows in by_participant(found):
        assert list(rows["kind"][:3]) == ["practice"] * 3 and set(rows["block"][:3]) == {0}
        rest = rows[3:].reset_index(drop=True)
        places = np.flatnonzero(rest["kind"] == "catch")
        assert len(places) == 4 and all(place // 6 == part for part, place in enumerate(places)), "one in each quarter"
        assert rest.loc[places, "answer"].eq("5").all() and rest.drop(places)["answer"].eq("").all()
        assert rest.loc[places, "answer_index"].eq(5).all() and rest.drop(places)["answer_index"].isna().all()
        assert keeps_rules([{"style": frozenset([one])} for one in rest["style"]], {"style": 2})


def test_catch_trials_are_of_what_a_participant_sees(records: list[Record]) -> None:
    """Levels that differ between participants, and conditions of a Latin square, do not come in by way of them."""
    text = "[catch]\ncount = 6\nwhere = 'replicate == 1'\n[assign]\n"
    for rows in by_participant(lists(records, f"{text}between = ['style']")):
        assert rows["style"].nunique() == 1 and Counter(rows["kind"])["catch"] == 6
    square = "latin = { items = 'content', conditions = 'style' }"
    for rows in by_participant(lists(records, text + square)):
        assert (rows.groupby("content")["style"].nunique() == 1).all()
    with pytest.raises(ProtocolError, match=r"catch\.where: leaves no catch trial for participants of group style-s1"):
        lists(records, "[catch]\ncount = 1\nwhere = 'style == \"s0\"'\n[assign]\nbetween = ['style']")


def test_fixed_blocks_have_one_order_for_all_groups(records: list[Record]) -> None:
    text = "[assign]\nlatin = { items = 'content', conditions = 'style' }\n[blocks]\nby = ['style']\norder = 'fixed'"
    orders = {tuple(dict.fromkeys(rows["block_label"])) for rows in by_participant(lists(records, text))}
    assert orders == {("style-s0", "style-s1", "style-s2")}


def test_catch_trials_keep_the_rules_too(records: list[Record]) -> None:
    text = "[catch]\ncount = 3\nwhere = 'content == \"c0\"'\n[sequence]\nno_repeat = ['content']"
    for rows in by_participant(lists(records, text)):
        assert Counter(rows["kind"]) == {"main": 24, "catch": 3}
        assert keeps_rules([{"content": frozenset([one])} for one in rows["content"]], {"content": 1})


def test_only_what_was_accepted_or_is_asked_for(records: list[Record]) -> None:
    records[3] = changed(records[3], status="rejected")
    assert len(lists(records, participants=1).table) == 23
    assert len(lists(records, "[stimuli]\nstatus = ['accepted', 'rejected']", 1).table) == 24
    assert len(lists(records, "[stimuli]\nwhere = 'style == \"s1\" and replicate == 2'", 1).table) == 3


def test_answers(records: list[Record]) -> None:
    found = lists(records, "[response]\nchoices = 'style'\ncorrect = 'style'")
    assert found.answers.choices == ("s0", "s1", "s2") and found.answers.keys == ("1", "2", "3")
    assert (found.table["answer"] == found.table["style"]).all()
    counted = count_balance(found).set_index(["measure", "level"])
    assert counted.loc[("answer", "s1"), "total"] == 48


@pytest.mark.parametrize("form", ["pair", "triplet"])
@pytest.mark.parametrize(
    "assign", ["", "[assign]\nbetween = ['content']", "[blocks]\nby = ['content']\norder = 'latin'"]
)
def test_places_are_balanced_for_each_trial_whatever_else_goes_by_turns(
    records: list[Record], form: str, assign: str
) -> None:
    found = lists(records, f"[trial]\nform = '{form}'\ndiffer = ['style']\nfree = ['replicate']\n{assign}", 24)
    row = count_balance(found).set_index("measure").loc["arrangement"]
    assert row["lowest"] == row["highest"] == (24 if "between" not in assign else 6) / (2 if form == "pair" else 3)
    answers = Counter(zip(found.table["block"], found.table["answer"], strict=True))
    if "blocks" in assign and form == "triplet":
        assert len(set(answers.values())) == 1, "places do not follow the order of blocks"


def test_orders_of_blocks_are_balanced_within_groups(records: list[Record]) -> None:
    found = lists(
        records, "[assign]\nbetween = ['content']\n[blocks]\nby = ['content', 'style']\norder = 'williams'", 24
    )
    assert found.cycle == 24 and note_imbalance(found) == []
    places = Counter(
        (block.rpartition("-")[2], number)
        for rows in by_participant(found)
        for number, block in enumerate(rows["block_label"].unique())
    )
    assert set(places.values()) == {8}


def test_latin_squares_are_balanced_within_attributes(small_run: Run) -> None:
    records = [
        changed(record, attributes={"category": "animal" if int(record.levels["content"][1]) % 2 else "tool"})
        for record in made_up(small_run, 8, 2)
    ]
    found = lists(records, "[assign]\nlatin = {items = 'content', conditions = 'style'}", 4)
    for rows in by_participant(found):
        assert set(Counter(zip(rows["category"], rows["style"], strict=True)).values()) == {2}
    both = lists(records, "[assign]\nlatin = {items = 'content', conditions = 'style'}\nbetween = ['category']", 4)
    assert all(set(rows["style"]) == {"s0", "s1"} for rows in by_participant(both))


def test_practice_does_not_show_items_of_a_latin_square(records: list[Record]) -> None:
    text = "[assign]\nlatin = {items = 'content', conditions = 'style'}\n[practice]\ncount = 1\n"
    for rows in by_participant(lists(records, text + "held_out = true")):
        (practised,) = rows.loc[rows["kind"] == "practice", "content"]
        assert practised not in set(rows.loc[rows["kind"] == "main", "content"])
    with pytest.raises(ProtocolError, match="add held_out = true"):
        lists(records, text)


def test_controls_and_their_empty_levels(records: list[Record]) -> None:
    """As of a texture, which has no content image and no ratio."""
    for index in range(0, len(records), 2):
        records[index] = changed(records[index], role="texture", levels={**records[index].levels, "content": ""})
    text = "[stimuli]\nwhere = 'role != \"\"'\n"
    pairs = lists(records, text + "[trial]\nform = 'pair'\ndiffer = ['role']\nfree = ['content', 'replicate']", 1).table
    assert len(pairs) and all({row["role_1"], row["role_2"]} == {"main", "texture"} for row in pairs.to_dict("records"))
    answers = lists(records, text + "[response]\nchoices = 'content'\ncorrect = 'content'", 1)
    assert answers.answers.choices == ("c0", "c1", "c2", "c3")
    assert answers.table.loc[answers.table["role"] == "texture", "answer"].eq("").all()


FORMS = {
    "single": ("", ""),
    "pair": ('form = "pair"\ndiffer = ["style"]\nfree = ["content"]', 'differ = ["content"]'),
    "triplet": ('form = "triplet"\ndiffer = ["style"]\nfree = ["content"]', 'differ = ["content"]'),
    "triplet of roles": ('form = "triplet"\ndiffer = ["role"]\nfree = ["style", "content"]', 'differ = ["content"]'),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("where", ['role == "untouched"', 'role == "main" and style == ""', 'role == "texture"'])
def test_every_form_has_practice_and_catch_trials_of_controls(small_run: Run, form: str, where: str) -> None:
    """Photographs and stimuli of content only, which have no style, and textures, which have no content."""
    records = made_up(small_run, 4, 5)
    for index, record in enumerate(records):
        levels = record.levels
        if levels["style"] in ("s3", "s4"):
            role = "untouched" if levels["style"] == "s3" else "main"
            records[index] = changed(record, role=role, levels={**levels, "style": ""})
        elif levels["content"] == "c3":
            records[index] = changed(record, role="texture", levels={**levels, "content": ""})
    trial, own = FORMS[form]
    own = own.replace("content", "style") if "texture" in where else own
    sections = "".join(f"[{name}]\ncount = 2\nwhere = '{where}'\n{own}\n" for name in ("practice", "catch"))
    found = lists(records, f"[stimuli]\nwhere = 'role != \"\"'\n[trial]\n{trial}\n{sections}", 3)
    role = "texture" if "texture" in where else "untouched" if "untouched" in where else "main"
    for rows in by_participant(found):
        assert {"main": len(rows) - 4, "practice": 2, "catch": 2} == dict(rows["kind"].value_counts()) and len(rows) > 8
        others = rows[rows["kind"] != "main"]
        for column in (name for name in rows.columns if name.startswith("role")):
            assert set(others[column]) == {role}
    if own:
        one = '[catch]\ncount = 1\nwhere = \'content == "c0" and style == "s0"\'\n'
        with pytest.raises(ProtocolError, match=r"\[catch\] may have differ and free of its own"):
            lists(records, f"[stimuli]\nwhere = 'role != \"\"'\n[trial]\n{trial}\n{one}", 1)


def test_to_have_no_level_is_no_level(records: list[Record]) -> None:
    """Photographs without a style, one after the other, repeat no style."""
    for index in range(len(records) // 2 + 2):
        records[index] = changed(records[index], levels={**records[index].levels, "style": ""})
    rows = lists(records, "[sequence]\nno_repeat = ['style']\n", 1).table["style"]
    assert (rows == "").sum() == len(records) // 2 + 2
    assert not [one for one, other in itertools.pairwise(rows) if one and one == other]


def test_controls_are_shown_only_where_the_role_is_named(records: list[Record]) -> None:
    for index in range(0, len(records), 2):
        records[index] = changed(records[index], role="texture")
    shown = records[1].levels["content"]
    for where, roles in ((f"content == '{shown}'", {"main"}), ("role != 'none'", {"main", "texture"})):
        rows = lists(records, f'[stimuli]\nwhere = "{where}"\n', 1).table
        assert set(rows["role"]) == roles


def test_tight_rules_with_catch_trials(small_run: Run) -> None:
    """Two styles in strict alternation, with one more of either."""
    records = made_up(small_run, 4, 2)
    text = "[sequence]\nno_repeat = ['style']\n[catch]\ncount = 1\nwhere = 'content == \"c0\"'\n"
    for rows in by_participant(lists(records, text, 20)):
        assert keeps_rules([{"style": frozenset([one])} for one in rows["style"]], {"style": 1}) and len(rows) == 9


def test_names_that_lists_need(records: list[Record]) -> None:
    records = [changed(record, attributes={"kind": "x"}) for record in records]
    with pytest.raises(UsageError, match='factor or attribute "kind", which is a column of lists'):
        lists(records)


def test_the_design_of_the_documentation(small_run: Run) -> None:
    block = (ROOT / "docs/how-to/experiments.md").read_text().split("```toml\n")[1].split("```")[0]
    records: list[Record] = []
    for layers, ratio in itertools.product(("fine", "full"), (1e-7, 1e-5)):
        for record in made_up(small_run, 4, 3, 3):
            number = f"s{len(records):010x}"
            levels = {**record.levels, "style_layers": layers, "ratio": f"{ratio:g}"}
            name = f"{number}.png"
            there = {"levels": levels, "settings": record.settings.model_copy(update={"ppd": 16.0})}
            records.append(changed(record, stimulus_id=number, filename=name, alpha_beta_ratio=ratio, **there))
    found = make_lists(records, TrialDesign.from_toml(block))
    assert Counter(found.table["kind"]) == {"main": 24 * 96, "practice": 24 * 4, "catch": 24 * 6}
    places, practice = note_imbalance(found)
    assert places.startswith("places are equally frequent, within one, for every participant")
    assert practice.startswith("practice keeps 12 stimuli for itself (s00") and practice.endswith("132 are left")


@pytest.mark.parametrize("form", ["pair", "triplet"])
@pytest.mark.parametrize("count", [7, 12, 23])
@pytest.mark.parametrize("repetitions", [1, 3])
def test_places_are_within_one_for_every_participant(
    records: list[Record], form: str, count: int, repetitions: int
) -> None:
    text = f"[trial]\nform = '{form}'\ndiffer = ['style']\ncount = {count}\nrepetitions = {repetitions}\n"
    text += "[catch]\ncount = 5\nwhere = 'style != \"s0\"'\n[practice]\ncount = 4\n[blocks]\ncount = 3\norder = 'latin'"
    table = lists(records, text, participants=9).table
    for (_, kind), rows in table.groupby(["participant", "kind"]):
        counts = place_counts(rows, form)
        assert max(counts) - min(counts) <= 1, kind


def place_counts(rows: pd.DataFrame, form: str) -> list[int]:
    """How often each place had the stimulus that tells them apart."""
    if form == "triplet":
        return [int((rows["answer_index"] == place).sum()) for place in (1, 2, 3)]
    first = (rows["stimulus_id_1"] < rows["stimulus_id_2"]).sum()
    return [int(first), len(rows) - int(first)]


def test_whole_designs_are_balanced_for_trials_as_well(records: list[Record]) -> None:
    """Six participants who all see every triplet: each has each place twice."""
    found = lists(records, "[trial]\nform = 'triplet'\ndiffer = ['style']", participants=6)
    row = count_balance(found).set_index("measure").loc["arrangement"]
    assert (row["lowest"], row["highest"]) == (2, 2) and note_imbalance(found) == []


def test_catch_and_practice_trials_may_differ_in_other_factors(records: list[Record]) -> None:
    text = "[trial]\nform = 'pair'\ndiffer = ['style']\n"
    text += "[catch]\ncount = 3\nwhere = 'replicate == 1'\ndiffer = ['content']\n"
    text += "[practice]\ncount = 2\ndiffer = ['content', 'style']\nheld_out = true"
    found = lists(records, text, participants=2)
    differing = {"main": {"style"}, "catch": {"content"}, "practice": {"content", "style"}}
    for kind, rows in found.table.groupby("kind"):
        for name in ("content", "style"):
            assert (rows[f"{name}_1"] != rows[f"{name}_2"]).eq(name in differing[str(kind)]).all(), kind
    assert len(found.held_out) == 4 and found.left == 20
    for section in ("catch]\ncount = 1\nwhere = 'replicate == 1'", "practice]\ncount = 1"):
        with pytest.raises(ProtocolError, match=r"differ: is for pair, triplet"):
            lists(records, f"[{section}\ndiffer = ['style']")
        with pytest.raises(ProtocolError, match='has no factor or attribute "mood"'):
            lists(records, f"[trial]\nform = 'pair'\ndiffer = ['style']\n[{section}\ndiffer = ['mood']")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[trial]\nrepetitions = 1000000", "asks for 24,000,000 trials of each of 6 participants"),
        ("[catch]\ncount = 1000000\nwhere = 'replicate == 1'", "asks for 1,000,024 trials of each"),
        ("[stimuli]\nwhere = \"style == 'x' * 2000000000\"", "calculates with a text"),
        ("[stimuli]\nwhere = 'style.str.contains(\"(a+)+$\")'", "no stimulus is selected"),
        ("[stimuli]\nwhere = 'style.str.contains(\"s\", regex=True)'", "contains looks for one text"),
        (f"[stimuli]\nwhere = 'replicate == {'1' * 20_000}'", "has 20,013 characters, more than 10,000"),
    ],
)
def test_work_is_bounded(records: list[Record], text: str, said: str) -> None:
    with pytest.raises(ProtocolError, match=re.escape(said)):
        lists(records, text)


def test_many_participants_are_bounded(records: list[Record]) -> None:
    with pytest.raises(ProtocolError, match=r"of each of 100,000 participants; lists hold at most 10,000 of each"):
        lists(records, "", participants=100_000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[trial]\ncount = 25", "trial.count: only 24 trials are possible"),
        ("[trial]\ncount = 9\n[assign]\nbetween = ['style']",
         "trial.count: only 8 trials are possible for group style-s0"),
        ("[blocks]\ncount = 25", "blocks.count: there are only 24 trials"),
        ("[response]\nchoices = ['a', 'a']", "response.choices: a is given twice"),
        ("[response]\nchoices = ['a', '']", "response.choices[1]"),
        ("[response]\nkeys = ['escape', 'b']\nchoices = ['x', 'y']", "response.keys[0]"),
        ("[trial]\nform = 'pair'\ndiffer = ['style']\n[response]\nchoices = 'style'\ncorrect = 'style'",
         "response.correct: the stimuli of a trial differ in style"),
        ("[stimuli]\nwhere = 'replicate'", "it is not a condition"),
        ("[stimuli]\nwhere = '1'", "it is not a condition"),
        ("[stimuli]\nwhere = 'replicate < 9**9**9'", "9 ** 9 ** 9 is not possible in a condition"),
        ("[sequence]\nno_repeat = ['styel']",
         'test.toml:5: sequence.no_repeat: the run has no factor or attribute "styel" (did you mean "style"?)'),
        ("[trial]\nform = 'pair'\ndiffer = ['x']", 'trial.differ: the run has no factor or attribute "x"'),
        ("[trial]\nform = 'pair'", "trial.differ: name the factors in which the stimuli of a pair differ"),
        ("[trial]\ndiffer = ['style']", "trial.differ: is for pair, triplet, abx and similarity"),
        ("[trial]\nform = 'quadruple'", 'trial.form: must be "single", "pair", "triplet"'),
        ("[blocks]\nby = ['style']\ncount = 2", "blocks.count: give either by or count"),
        ("[trial]\nform = 'pair'\ndiffer = ['style']\n[blocks]\nby = ['style']",
         "blocks.by: the stimuli of a trial differ"),
        ("[sequence]\nno_repeat = ['replicate', 'content', 'style']\n[stimuli]\nwhere = 'style == \"s0\"'",
         "sequence.no_repeat: 8 of 8 trials of a block have style"),
        ("[stimuli]\nwhere = 'style == \"nothing\"'", "stimuli: no stimulus is selected"),
        ("[stimuli]\nwhere = 'style ='", "stimuli.where: the condition"),
        ("[practice]\ncount = 25", "practice.count: only 24 trials are possible"),
        ("[practice]\ncount = 24\nheld_out = true", "practice.held_out: takes 24 of 24 stimuli, which leaves no trial"),
        ("[catch]\ncount = 1\nwhere = 'style == \"s0\"'\nanswer = 'x'", 'catch.answer: "x" is not a choice'),
        ("[response]\ncorrect = 'style'", "response.choices: style has levels that are not choices: s0, s1, s2"),
        ("[response]\nkeys = ['a', 'a']\nchoices = ['x', 'y']", "response.keys: a is given twice"),
        ("[response]\nkeys = ['a']\nchoices = ['x', 'y']", "response.keys: there are 1 keys for 2 choices"),
        ("[stimuli]\nwhere = 'content != \"c0\" or style != \"s1\"'\n"
         "[assign]\nlatin = {items = 'content', conditions = 'style'}\nbetween = ['content']",
         "assign: leaves a group"),
        ("unknown = 1", "unknown: unknown key"),
    ],
)  # fmt: skip
def test_mistakes_are_named(records: list[Record], text: str, message: str) -> None:
    first = f"schema = 1\nname = 'test'\nparticipants = 2\n{text}"
    with pytest.raises(ProtocolError) as caught:
        make_lists(records, TrialDesign.from_toml(first, name="test.toml"))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "where",
    [
        "@pd.read_csv('x')",
        "style.to_csv('x')",
        "style.str.pipe(print)",
        "[x for x in style]",
        "(lambda: 1)()",
        "style[",
    ],
)
def test_conditions_run_nothing_else(where: str) -> None:
    with pytest.raises(UsageError, match="cannot be evaluated"):
        select(pd.DataFrame({"style": ["a", "b"]}), where)


def test_conditions() -> None:
    table = pd.DataFrame({"style": ["a", "b", "ab"], "x": [1.0, 2.0, np.nan]})
    for where, rows in {
        "style == 'a' or x > 1.5": [0, 1],
        "style in ['a', 'ab']": [0, 2],
        "style.str.contains('b') and not x.isna()": [1],
        "x * 2 <= 2": [0],
    }.items():
        assert list(select(table, where).index) == rows


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("x == '1'", "x holds numbers, not '1'"),
        ("x not in ['1', '2']", "x holds numbers, not '1'"),
        ("'1' != x", "x holds numbers, not '1'"),
        ("style == 3", 'style holds texts, not 3, as in "3"'),
        ("same != True", 'same holds texts, not True, as in "yes"'),
    ],
)
def test_conditions_that_could_never_hold_are_refused(where: str, message: str) -> None:
    table = pd.DataFrame({"style": ["a", "b", "ab"], "x": [1.0, 2.0, np.nan], "same": ["yes", "no", "no"]})
    with pytest.raises(UsageError, match=message):
        select(table, where)


def test_files_and_command(small_run: Run, tmp_path: Path, command: Command) -> None:
    example = ROOT / "protocols/trials/rating.toml"
    text = example.read_text().replace('no_repeat = ["style"]', "")
    (tmp_path / "rating.toml").write_text(text)
    out = tmp_path / "lists"
    code, said, err = command("trials", small_run.path, "--design", tmp_path / "rating.toml", "--out", out)
    assert code == 0 and "12 participants" in said, err
    whole = pd.read_csv(out / "trials.csv")
    parts = [pd.read_csv(path) for path in sorted((out / "participants").iterdir())]
    pd.testing.assert_frame_equal(whole, pd.concat(parts, ignore_index=True))
    assert (out / "design.toml").read_text() == text
    files = {(small_run.path / name).is_file() for name in whole["stim_file"]}
    assert files == {True}
    code, _, err = command("trials", small_run.path, "--design", tmp_path / "rating.toml", "--out", out)
    assert code == 2 and "is not an empty folder" in err
    assert command("trials", small_run.path, "--design", tmp_path / "none.toml")[0] == 2


def test_nothing_is_left_where_lists_cannot_be_written(records: list[Record], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is not an empty folder"):
        save_lists(lists(records), tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
