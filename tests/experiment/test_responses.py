"""Answers come back to the stimuli that they belong to, and to no others."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pytest
import xarray as xr

from stimkit.errors import UsageError
from stimkit.experiment.responses import count_responses, join_responses, save_joined
from stimkit.runfolder.run import Run

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ids(small_run: Run) -> list[str]:
    return list(small_run.records)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def psychopy(ids: list[str], participant: str = "p001") -> str:
    """A file as PsychoPy's `saveAsWideText` writes it, with an instruction in front."""
    rows = [
        f"{participant},{number},{one},trials,{number / 2},{number % 2}," for number, one in enumerate(ids, start=1)
    ]
    return "\ufeffparticipant,trial,stimulus_id,trials.thisN,rt,correct,\n,,,,,,\n" + "\n".join(rows) + "\n"


def test_files_of_both_programs(small_run: Run, ids: list[str], tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"participant": "p002", "trial_type": "preload", "trial_index": 0, "rt": None}]
    rows += [{"participant": "p002", "trial": n, "stimulus_id": one, "rt": 10 * n} for n, one in enumerate(ids[:3])]
    files = [written(tmp_path / "a.csv", psychopy(ids)), written(tmp_path / "b.json", json.dumps(rows))]
    joined = join_responses(small_run.path, files)
    assert joined.without_stimulus == 2 and len(joined.unknown) == 0 and joined.unanswered == ()
    found = joined.responses
    assert list(found["stimulus_id"]) == [*ids, *ids[:3]]
    assert list(found["rt"]) == [0.5, 1.0, 1.5, 2.0, 0.0, 0.01, 0.02]
    for row in found.to_dict("records"):
        record = small_run.records[row["stimulus_id"]]
        assert {name: str(row[name]) for name in ("style_layers", "content")} == {
            name: record.levels[name] for name in ("style_layers", "content")
        }
        assert row["ratio"] == float(record.levels["ratio"])
        assert row["loss_total_file"] == record.losses.file.total
        assert row["mean_luminance"] == record.statistics["mean_luminance"]
    assert list(found["response_file"]) == ["a.csv"] * 4 + ["b.json"] * 3


def test_a_dataset_with_coordinates(small_run: Run, ids: list[str], tmp_path: Path) -> None:
    joined = join_responses(small_run.path, [written(tmp_path / "a.csv", psychopy(ids[:2]))])
    save_joined(joined, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out/responses.csv")
    with xr.open_dataset(tmp_path / "out/responses.nc") as dataset:
        assert dataset.sizes == {"row": 2}
        assert {"stimulus_id", "style_layers", "ratio", "participant"} <= set(dataset.coords)
        assert list(dataset["rt"].values) == list(table["rt"]) == [0.5, 1.0]
        chosen = dataset.where(dataset["stimulus_id"] == ids[1], drop=True)
        assert chosen["rt"].item() == 1.0 and chosen["style_layers"].item() == table["style_layers"][1]
        assert dataset["mean_luminance"].attrs["units"] == "1"
        assert json.loads(dataset.attrs["response_files"])[str(tmp_path / "a.csv")].startswith("sha256:")
    assert list(pd.read_csv(tmp_path / "out/unanswered.csv")["stimulus_id"]) == ids[2:] == list(joined.unanswered)


def test_trials_of_several_stimuli_and_names_of_files(small_run: Run, ids: list[str], tmp_path: Path) -> None:
    names = [f"stimuli/{small_run.records[one].filename}" for one in ids]
    text = f"stim_file_1,stim_file_2,choice\n{names[0]},{names[1]},left\n{names[3]},{names[2]},right\n"
    found = join_responses(small_run.path, [written(tmp_path / "a.csv", text)], columns=["seed"]).responses
    assert found["stimulus_id_1"].tolist() == [ids[0], ids[3]] and found["stimulus_id_2"].tolist() == [ids[1], ids[2]]
    for place in (1, 2):
        seeds = [small_run.records[one].seed for one in found[f"stimulus_id_{place}"]]
        assert list(found[f"seed_{place}"]) == seeds and "mean_luminance_1" not in found


def test_columns_of_the_same_name_are_kept_apart(small_run: Run, ids: list[str], tmp_path: Path) -> None:
    text = f"stimulus_id,status,style_layers\n{ids[0]},done,{small_run.records[ids[0]].levels['style_layers']}\n"
    found = join_responses(small_run.path, [written(tmp_path / "a.csv", text)]).responses
    assert found["status"].tolist() == ["done"] and found["stimulus_status"].tolist() == ["accepted"]


def test_responses_to_other_stimuli(small_run: Run, ids: list[str], tmp_path: Path, command: Command) -> None:
    mixed = written(tmp_path / "mixed.csv", f"stimulus_id,rating\n{ids[0]},1\nsffffffffff,2\n")
    joined = join_responses(small_run.path, [mixed])
    assert list(joined.unknown["rating"]) == [2] and list(joined.responses["rating"]) == [1]
    code, out, _ = command("join", small_run.path, mixed, "--out", tmp_path / "out")
    assert code == 5 and "1 rows show stimuli that are not in the run" in out
    assert list(pd.read_csv(tmp_path / "out/unknown.csv")["stimulus_id"]) == ["sffffffffff"]
    code, _, err = command("join", small_run.path, mixed, "--out", tmp_path / "out")
    assert code == 2 and "is not an empty folder" in err
    with pytest.raises(UsageError, match="are they of another run"):
        join_responses(small_run.path, [written(tmp_path / "other.csv", "stimulus_id,rating\nsffffffffff,2\n")])


def test_mistakes(small_run: Run, ids: list[str], tmp_path: Path) -> None:
    once = written(tmp_path / "a.csv", psychopy(ids))
    with pytest.raises(UsageError, match=r"8 responses are to the same trial, as participant p001, trial 1"):
        join_responses(small_run.path, [once, written(tmp_path / "again.csv", psychopy(ids) + "\n")])
    (tmp_path / "p2").mkdir()
    with pytest.raises(UsageError, match=r"a\.csv has the same contents as .*a\.csv; give each file once"):
        join_responses(small_run.path, [once, written(tmp_path / "p2" / "a.csv", psychopy(ids))])
    levels = small_run.records[ids[0]].levels["style_layers"]
    other = written(tmp_path / "b.csv", f"stimulus_id,style_layers\n{ids[0]},another\n")
    with pytest.raises(UsageError, match=f'says style_layers "another" of {ids[0]}, and the manifest says "{levels}"'):
        join_responses(small_run.path, [other])
    with pytest.raises(UsageError, match="has no column stimulus_id or stim_file, but x, y"):
        join_responses(small_run.path, [written(tmp_path / "c.csv", "x,y\n1,2\n")])
    with pytest.raises(UsageError, match="is not a table"):
        join_responses(small_run.path, [written(tmp_path / "d.json", '{"a": 1}')])
    with pytest.raises(UsageError, match="is not a table"):
        join_responses(small_run.path, [written(tmp_path / "e.csv", "")])
    with pytest.raises(UsageError, match="there are no responses in"):
        join_responses(small_run.path, [written(tmp_path / "f.csv", "stimulus_id,rating\n")])
    with pytest.raises(UsageError, match="is not a table"):
        join_responses(small_run.path, [written(tmp_path / "g.json", "[" * 100_000)])
    with pytest.raises(UsageError, match="cannot be read"):
        join_responses(small_run.path, [tmp_path / "none.csv"])
    with pytest.raises(UsageError, match='no column "sead"'):
        join_responses(small_run.path, [once], columns=["sead"])


def test_files_of_one_name_are_told_apart(small_run: Run, ids: list[str], tmp_path: Path) -> None:
    files = []
    for person in ("p1", "p2"):
        (tmp_path / person).mkdir()
        files.append(written(tmp_path / person / "data.csv", f"stimulus_id,who\n{ids[0]},{person}\n"))
    found = join_responses(small_run.path, files).responses
    assert list(found["response_file"]) == [str(file) for file in files]


def test_tables_of_spreadsheets(small_run: Run, ids: list[str], tmp_path: Path) -> None:
    """Excel's own files, and what it writes where numbers have decimal commas, in the letters of Windows."""
    rows = [("René", ids[0], 0.523), ("Zoë", ids[1], 1.0)]
    pd.DataFrame(rows, columns=["participant", "stimulus_id", "rating"]).to_excel(tmp_path / "a.xlsx", index=False)
    text = "participant;stimulus_id;rating\n" + "".join(f"{a};{b};{c!s}\n".replace(".", ",") for a, b, c in rows)
    (tmp_path / "b.csv").write_bytes(text.encode("cp1252"))
    (tmp_path / "c.csv").write_text(text, encoding="utf-16")
    for name in ("a.xlsx", "b.csv", "c.csv"):
        found = join_responses(small_run.path, [tmp_path / name]).responses
        assert list(zip(found["participant"], found["stimulus_id"], found["rating"], strict=True)) == rows
    (tmp_path / "e.txt").write_text(text.replace(";", "\t").replace(",", "."), encoding="utf-16")  # "Unicode text"
    assert list(join_responses(small_run.path, [tmp_path / "e.txt"]).responses["rating"]) == [0.523, 1.0]
    lists = f"stimulus_id\tchosen\n{ids[0]}\t1,2\n{ids[1]}\t3,4\n"
    assert list(join_responses(small_run.path, [written(tmp_path / "f.tsv", lists)]).responses["chosen"]) == [
        "1,2",
        "3,4",
    ]
    (tmp_path / "d.xlsx").write_bytes(b"no spreadsheet")
    with pytest.raises(UsageError, match="is not a table"):
        join_responses(small_run.path, [tmp_path / "d.xlsx"])


def test_a_row_with_more_values_than_columns_is_an_error(small_run: Run, ids: list[str], tmp_path: Path) -> None:
    """A comma in a comment must not move what follows it into other columns."""
    row = f"{ids[0]},looks like cat, 1 dog,4,0.7\n"
    with pytest.raises(UsageError, match="row 2 has more values than there are columns"):
        join_responses(small_run.path, [written(tmp_path / "a.csv", "stimulus_id,comment,response,rating\n" + row)])
    trailing = written(tmp_path / "b.csv", f"stimulus_id,rating\n{ids[0]},3,\n{ids[1]},4,,\n")
    assert list(join_responses(small_run.path, [trailing]).responses["rating"]) == [3, 4]


def test_labels_stay_what_they_are(small_run: Run, ids: list[str], tmp_path: Path) -> None:
    text = "participant,trial,stimulus_id,code,rating,age/sex,note\n"
    text += f"007,1,{ids[0]},012,0.50,30/f,5e12345\n7,1,{ids[1]},1,n/a,,1\n"
    joined = join_responses(small_run.path, [written(tmp_path / "a.csv", text)])
    found = joined.responses
    assert list(found["participant"]) == ["007", "7"] and list(found["code"]) == ["012", "1"]
    assert found["rating"][0] == 0.5 and pd.isna(found["rating"][1])
    save_joined(joined, tmp_path / "out")
    with xr.open_dataset(tmp_path / "out/responses.nc") as dataset:
        assert dataset["age_sex"].values.tolist() == ["30/f", ""]


def test_files_that_are_named_as_exports_name_them(small_run: Run, ids: list[str], tmp_path: Path) -> None:
    names = [f"stim-{ids[0]}_image.png", "stimuli/another.png", ""]
    text = "stim_file,rating\n" + "".join(f"{name},1\n" for name in names)
    joined = join_responses(small_run.path, [written(tmp_path / "a.csv", text)])
    assert list(joined.responses["stimulus_id"]) == [ids[0]] and joined.without_stimulus == 1
    assert list(joined.unknown["stim_file"]) == ["stimuli/another.png"]


def test_a_typed_quote_swallows_no_rows(small_run: Run, ids: list[str], tmp_path: Path) -> None:
    header = "participant,trial,stimulus_id,typed,rating\n"
    rows = [f"p1,{number},{one},ok,30{number}\n" for number, one in enumerate(ids, 1)]
    for typed, second in (('"wow', '"wow'), ('"wow', 'wow"'), ('"wow', "wow")):
        broken = [row.replace("ok", {1: typed, 3: second}.get(number, "ok")) for number, row in enumerate(rows)]
        with pytest.raises(UsageError, match=r"line 3 to \d: .*begins with a quote must have it doubled"):
            join_responses(small_run.path, [written(tmp_path / "a.csv", header + "".join(broken))])
    rows[1] = rows[1].replace("ok", '"""wow"", he said,\nand left"')
    found = join_responses(small_run.path, [written(tmp_path / "a.csv", header + "".join(rows))]).responses
    assert list(found["typed"]) == ["ok", '"wow", he said,\nand left', "ok", "ok"]


def test_participants_may_be_called_like_nothing_or_like_numbers(
    small_run: Run, ids: list[str], tmp_path: Path
) -> None:
    names = ["NA", "None", "null", "1E5"]
    text = "".join(f"{name},1,{one},{name}\n" for name, one in zip(names, ids, strict=True))
    file = written(tmp_path / "a.csv", "participant,trial,stimulus_id,subject\n" + text)
    found = join_responses(small_run.path, [file]).responses
    assert list(found["participant"]) == list(found["subject"]) == names
    again = written(tmp_path / "b.csv", f"participant,trial,stimulus_id\nNA,1,{ids[0]}\nNA,1,{ids[0]}\n")
    with pytest.raises(UsageError, match="2 responses are to the same trial, as participant NA, trial 1"):
        join_responses(small_run.path, [again])
    subject = written(tmp_path / "c.csv", again.read_text().replace("participant", "subject"))
    with pytest.raises(UsageError, match="2 responses are to the same trial, as subject NA, trial 1"):
        join_responses(small_run.path, [subject])


@pytest.mark.parametrize("form", ["csv", "json"])
def test_truth_values_with_gaps_and_long_numbers(form: str, small_run: Run, ids: list[str], tmp_path: Path) -> None:
    values = [None, True, False, True]
    numbers = [9007199254740993, None, 1, 2]
    if form == "json":
        rows = [
            {"stimulus_id": one, "correct": value, "token": number}
            for one, value, number in zip(ids, values, numbers, strict=True)
        ]
        file = written(tmp_path / "a.json", json.dumps(rows))
    else:
        words = {None: "", True: "true", False: "false"}
        lines = [
            f"{one},{words[value]},{number or ''}\n" for one, value, number in zip(ids, values, numbers, strict=True)
        ]
        file = written(tmp_path / "a.csv", "stimulus_id,correct,token\n" + "".join(lines))
    joined = join_responses(small_run.path, [file])
    assert joined.responses["correct"].mean() == pytest.approx(2 / 3)
    assert joined.responses["token"][0] == "9007199254740993"
    save_joined(joined, tmp_path / "out")
    with xr.open_dataset(tmp_path / "out/responses.nc") as dataset:
        assert dataset["correct"].values.tolist()[1:] == [1, 0, 1] and np.isnan(dataset["correct"].values[0])


def test_files_of_several_participants_in_one(small_run: Run, ids: list[str], tmp_path: Path) -> None:
    text = f"participant,stimulus_id,rating\na,{ids[0]},1\nrating,extra,stimulus_id,participant\n2,x,{ids[1]},b\n"
    found = join_responses(small_run.path, [written(tmp_path / "a.csv", text)]).responses
    assert found[["participant", "stimulus_id", "rating"]].values.tolist() == [["a", ids[0], 1], ["b", ids[1], 2]]
    assert found["extra"].tolist()[1] == "x" and pd.isna(found["extra"][0])


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\nstimulus_id;rating\n{0};0,5\n",
        '\n\n# made by hand\nstimulus_id,"rating; in, seconds",rating\n{0},,0.5\n',
        "stimulus_id , rating \n {0} , 0.5\n",
        "stimulus_id\trating\tmouse\n{0}\t0.5\t" + "1;2," * 40_000 + "\n",
    ],
    ids=["excel", "preamble", "spaces", "long"],
)
def test_tables_as_programs_write_them(text: str, small_run: Run, ids: list[str], tmp_path: Path) -> None:
    found = join_responses(small_run.path, [written(tmp_path / "a.csv", text.format(ids[0]))]).responses
    assert found["rating"].tolist() == [0.5] and found["stimulus_id"].tolist() == [ids[0]]


def test_columns_keep_their_values_whatever_they_are_called(small_run: Run, ids: list[str], tmp_path: Path) -> None:
    names = ["a/b", "a_b", "#n", "row", "response_file", "x" * 300, "ä ö", "two\nlines"]
    header = ",".join(f'"{name}"' for name in ["stimulus_id", *names])
    values = ",".join(map(str, range(len(names))))
    joined = join_responses(small_run.path, [written(tmp_path / "a.csv", f"{header}\n{ids[0]},{values}\n")])
    assert joined.responses["recorded_response_file"].tolist() == [4]
    assert joined.responses["response_file"].tolist() == ["a.csv"]
    save_joined(joined, tmp_path / "out")
    with xr.open_dataset(tmp_path / "out/responses.nc") as dataset:
        found = {variable.attrs.get("column", name): variable for name, variable in dataset.variables.items()}
        for index, name in enumerate(names):
            column = "recorded_response_file" if name == "response_file" else name
            assert found[column].values.tolist() == [index], name


# --- units -----------------------------------------------------------------------------------------------------


def test_times_of_both_programs_are_seconds_and_what_was_recorded_stays(
    small_run: Run, ids: list[str], tmp_path: Path
) -> None:
    jspsych = f"participant,trial,trial_index,time_elapsed,stimulus_id,rt,correct\np002,1,4,2500,{ids[0]},301,true\n"
    files = [written(tmp_path / "a.csv", psychopy(ids)), written(tmp_path / "b.csv", jspsych)]
    joined = join_responses(small_run.path, files)
    found = joined.responses.set_index("participant")
    assert found["rt"].tolist() == [0.5, 1.0, 1.5, 2.0, 0.301]
    assert found["rt_recorded"].tolist() == [0.5, 1.0, 1.5, 2.0, 301]
    assert found["recorded_time_unit"].tolist() == ["s"] * 4 + ["ms"]
    assert found["time_elapsed"].tolist()[-1] == 2.5 and found["time_elapsed_recorded"].tolist()[-1] == 2500
    assert found["correct"].tolist() == [1, 0, 1, 0, 1] and bool(found["correct_recorded"].tolist()[-1]) is True
    save_joined(joined, tmp_path / "out")
    with xr.open_dataset(tmp_path / "out/responses.nc") as dataset:
        assert dataset["rt"].attrs["units"] == dataset["time_elapsed"].attrs["units"] == "s"
        assert "units" not in dataset["rt_recorded"].attrs, "they are of two programs"
    again = join_responses(small_run.path, [tmp_path / "out/responses.csv"]).responses
    assert again["rt"].tolist() == [0.5, 1.0, 1.5, 2.0, 0.301], "what is in seconds already stays"


def test_times_of_other_programs_need_their_unit(
    small_run: Run, ids: list[str], tmp_path: Path, command: Command
) -> None:
    file = written(tmp_path / "a.csv", f"participant,stimulus_id,rt\np1,{ids[0]},640\np1,{ids[1]},\n")
    with pytest.raises(UsageError, match="is rt in seconds or in milliseconds"):
        join_responses(small_run.path, [file])
    for unit, expected in (("ms", 0.64), ("s", 640)):
        joined = join_responses(small_run.path, [file], times=unit)
        assert joined.responses["rt"][0] == expected and pd.isna(joined.responses["rt"][1])
        assert joined.dataset["rt_recorded"].attrs["units"] == unit
        assert any("is their unit right" in line for line in count_responses(joined)) == (unit == "s")
    with pytest.raises(UsageError, match='not in "min"'):
        join_responses(small_run.path, [file], times="min")
    code, out, _ = command("join", small_run.path, file, "--times", "ms", "--out", tmp_path / "out")
    assert code == 0 and "2 responses of 1 participants" in out
    named = written(tmp_path / "b.csv", f"stimulus_id,rt_ms\n{ids[0]},640\n")
    joined = join_responses(small_run.path, [named])
    assert joined.responses[["rt", "rt_ms"]].values.tolist() == [[0.64, 640]]
    assert [joined.dataset[name].attrs["units"] for name in ("rt", "rt_ms")] == ["s", "ms"]
    spoken = written(tmp_path / "c.csv", f"stimulus_id,rt_ms\n{ids[0]},soon\n")
    assert join_responses(small_run.path, [spoken]).responses["rt_ms"].tolist() == ["soon"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["true", "FALSE", ""], [1, 0, None]),
        (["1", "0", ""], [1, 0, None]),
        (["1.0", "0.0", "null"], [1, 0, None]),
        (["correct", "incorrect", ""], [1, 0, None]),
        (["left", "right", ""], None),
        (["right", "right", ""], None),
        (["0.5", "1.5", ""], None),
    ],
)
def test_right_and_wrong_are_1_and_0(
    given: list[str], expected: list[int | None] | None, small_run: Run, ids: list[str], tmp_path: Path
) -> None:
    rows = "".join(f"{one},{value}\n" for one, value in zip(ids, given, strict=False))
    found = join_responses(small_run.path, [written(tmp_path / "a.csv", f"stimulus_id,correct\n{rows}")]).responses
    if expected is None:
        assert [str(value) for value in found["correct"].dropna()] == [value for value in given if value]
    else:
        assert [None if pd.isna(value) else value for value in found["correct"]] == expected
        assert found["correct"].mean() == 0.5


def test_a_triplet_has_the_levels_of_its_trial(small_run: Run, ids: list[str], tmp_path: Path) -> None:
    levels = {one: dict(small_run.records[one].levels) for one in ids}
    one, two, three, four = ids  # style_layers one and two, each with two ratios
    rows = [(one, one, two), (three, one, one), (four, four, four), (one, two, "")]
    text = "stimulus_id_1,stimulus_id_2,stimulus_id_3,kind\n" + "".join(f"{','.join(row)},main\n" for row in rows)
    joined = join_responses(small_run.path, [written(tmp_path / "a.csv", text)])
    found = joined.responses
    for name in ("style_layers", "ratio"):
        for row, (shared, odd) in zip(rows, found[[name, f"{name}_odd"]].itertuples(index=False), strict=True):
            shown = [levels[stimulus][name] for stimulus in row if stimulus]
            singles = [level for level in shown if shown.count(level) == 1]
            if len(set(shown)) == 1:
                assert float(shared) == float(shown[0]) if name == "ratio" else shared == shown[0]
            else:
                assert pd.isna(shared)
            if len(shown) == 3 and len(singles) == 1:
                assert float(odd) == float(singles[0]) if name == "ratio" else odd == singles[0]
            else:
                assert pd.isna(odd)
    assert found["content"].tolist() == ["cat"] * 4
    assert {"style_layers", "ratio_odd", "kind"} <= set(joined.dataset.coords)
    assert joined.dataset["kind"].groupby("content").count().item() == 4


# --- bounds ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sheet_with_cells_far_away(small_run: Run, ids: list[str], tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    sheet.append(["stimulus_id", "rating"])
    sheet.append([ids[0], 4])
    sheet.append([])
    sheet.append([ids[1], 2.5])
    book.save(tmp_path / "a.xlsx")
    assert join_responses(small_run.path, [tmp_path / "a.xlsx"]).responses["rating"].tolist() == [4, 2.5]
    sheet["XFD1048576"] = 1
    book.save(tmp_path / "b.xlsx")
    found = join_responses(small_run.path, [tmp_path / "b.xlsx"])
    assert found.responses["rating"].tolist() == [4, 2.5] and found.without_stimulus == 1
    for row in range(1, 2000):
        sheet.cell(row, 16384, 1)
    book.save(tmp_path / "c.xlsx")
    with pytest.raises(UsageError, match=r"c\.xlsx is not a table: it has more than 20,000,000 cells"):
        join_responses(small_run.path, [tmp_path / "c.xlsx"])
    with zipfile.ZipFile(tmp_path / "d.xlsx", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x", "w") as member:
        for _ in range(101):
            member.write(bytes(10_000_000))
    with pytest.raises(UsageError, match=r"d\.xlsx is not a table: its parts have 1,010,000,000 bytes"):
        join_responses(small_run.path, [tmp_path / "d.xlsx"])


def test_too_many_columns(small_run: Run, ids: list[str], tmp_path: Path) -> None:
    names = ",".join(f"q{number}" for number in range(10_000))
    file = written(tmp_path / "a.csv", f"stimulus_id,{names}\n{ids[0]}{',' * 10_000}\n")
    with pytest.raises(UsageError, match="it has 10,001 columns, more than 10,000"):
        join_responses(small_run.path, [file])
