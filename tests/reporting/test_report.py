"""The report: what it holds, and what a browser makes of it."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

import stimkit
from stimkit.auditing.evidence import Evidence
from stimkit.documents.curation import read_curation
from stimkit.errors import RunFolderError
from stimkit.images.png import encode_png
from stimkit.reporting.contents import BYTES_PER_PIXEL, SMALLEST_THUMBNAIL, THUMBNAIL_BUDGET, thumbnail, thumbnail_side
from stimkit.reporting.report import report
from stimkit.runfolder.run import Run, read_run
from stimkit.runfolder.store import RunStore
from tests.conftest import document, forge, small_plan

Command = Callable[..., tuple[int, str, str]]
HOSTILE = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_run: Run) -> Path:
    """A run with a description that tries to become a part of the page."""
    folder = tmp_path_factory.mktemp("report") / "run"
    plan = stimkit.plan(stimkit.Protocol.from_dict({**document(), "description": HOSTILE}))
    shutil.copytree(small_run.path, folder)
    stimkit.run(plan, folder, device="cpu")
    return folder


@pytest.fixture(scope="module")
def page_file(run: Path) -> Path:
    return report(run, device="cpu")


def data_of(path: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_the_page_holds_the_run(run: Path, page_file: Path) -> None:
    data = data_of(page_file)
    records = stimkit.open_run(run).records
    assert [one["id"] for one in data["stimuli"]] == list(records)
    index = [variable["name"] for variable in data["variables"]].index("mean_luminance")
    for one in data["stimuli"]:
        record = records[one["id"]]
        stages = {stage: losses.model_dump() for stage, losses in record.losses.stages().items()}
        assert one["losses"] == stages and one["levels"] == {"role": "main", **record.levels}
        assert one["values"][index] == record.statistics["mean_luminance"]
        with Image.open(io.BytesIO(base64.b64decode(one["image"].split(",")[1]))) as image:
            assert np.array_equal(np.asarray(image), stimkit.open_run(run).image(one["id"])), "small ones as they are"
        assert one["trace"]["evaluation"] == list(range(1, record.evaluations + 1))
    assert {one["name"] for one in data["findings"]} >= {"not_converged"}
    assert data["effects"] and data["factors"] == {"content": ["cat"], "style": ["cup"], **data["factors"]}


def test_nothing_is_fetched_and_nothing_hostile_is_markup(page_file: Path) -> None:
    text = page_file.read_text()
    assert HOSTILE not in text and "default-src 'none'" in text
    own = text[: text.index("<script>")]  # in front of the plotting library, which names addresses in its text
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", own)


@pytest.mark.parametrize(("count", "side"), [(1, 224), (100, 224), (1280, 187)])
def test_thumbnails_stay_within_the_budget(count: int, side: int) -> None:
    found = thumbnail_side([(224, 200)] * count)
    assert found == side and count * BYTES_PER_PIXEL * found**2 <= THUMBNAIL_BUDGET
    assert thumbnail_side([(512, 512)] * 10**6) == SMALLEST_THUMBNAIL


def test_large_stimuli_become_small_pictures(small_run: Run, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 600, 3), dtype=np.uint8)
    evidence = Evidence(next(iter(small_run.records.values())), (), encode_png(pixels), pixels, None)
    uri = thumbnail(evidence, 128, 10**9)
    assert uri is not None and uri.startswith("data:image/webp;base64,")
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as image:
        assert image.size == (128, 64)
    uri = thumbnail(evidence, 600, 100_000)
    assert uri is not None and uri.startswith("data:image/webp;base64,"), "small enough a picture, too large a file"
    assert thumbnail(replace(evidence, png=None, values=None), 128, 10**9) is None


def test_command_and_mistakes(run: Path, tmp_path: Path, command: Command) -> None:
    code, out, err = command("report", run, "--out", tmp_path / "one.html", "--no-losses")
    assert code == 0 and "one.html: " in out, err
    assert "Losses were not computed again" in (tmp_path / "one.html").read_text()
    assert command("report", tmp_path)[0] == 2
    RunStore.create(tmp_path / "new", stimkit.plan(stimkit.Protocol.from_dict(document())))
    with pytest.raises(RunFolderError, match="is not a run folder"):
        report(tmp_path / "new")


def test_a_damaged_run_has_a_report_with_its_findings_first(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    first, second, *_ = read_run(tmp_path / "run").records.values()
    (tmp_path / "run" / "stimuli" / first.filename).unlink()
    (tmp_path / "run" / "records" / f"{second.stimulus_id}.json").write_text("{")
    data = data_of(report(tmp_path / "run", device="cpu", losses=False))
    assert [one["id"] for one in data["stimuli"]] == list(read_run(tmp_path / "run").records)
    assert data["stimuli"][0]["image"] is None and data["stimuli"][0]["values"] == [None] * len(data["variables"])
    assert {one["name"] for one in data["findings"][:2]} == {"record_damaged", "stimulus_missing"}


def test_a_record_cannot_choose_what_is_shown(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    secret = tmp_path / "run" / "stimuli" / "secret.png"
    Image.new("RGB", (16, 16), "red").save(secret)
    record = next(iter(read_run(tmp_path / "run").records.values()))
    forge(tmp_path / "run", record.stimulus_id, filename=secret.name)
    (tmp_path / "run" / "traces" / f"{record.stimulus_id}.npy").unlink()
    data = data_of(report(tmp_path / "run", device="cpu", losses=False))
    assert base64.b64encode(secret.read_bytes()).decode() not in (tmp_path / "run" / "report.html").read_text()
    assert data["stimuli"][0]["file"] == f"stimuli/{record.filename}" and data["stimuli"][0]["trace"]["total"] == []
    assert data["findings"][0]["name"] == "record_altered"


# --- in a browser ---------------------------------------------------------------------------------------------


def test_a_report_of_nothing_that_can_be_audited_still_works(browser: Browser, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    for path in (tmp_path / "run" / "stimuli").iterdir():
        path.unlink()
    one = browser.new_page()
    trouble: list[str] = []
    one.on("pageerror", lambda error: trouble.append(str(error)))
    one.goto(report(tmp_path / "run", device="cpu").as_uri())
    one.locator("button.thumb").first.click()
    one.locator("#close").click()
    assert trouble == [] and not one.locator("#detail").is_visible()
    one.close()


@pytest.fixture
def page(browser: Browser, page_file: Path) -> Iterator[Page]:
    """The report, opened from disk without a network; at the end nothing was asked for and nothing went wrong."""
    context = browser.new_context(offline=True, viewport={"width": 1300, "height": 900})
    one = context.new_page()
    trouble: list[str] = []
    one.on("console", lambda message: trouble.append(message.text) if message.type in ("error", "warning") else None)
    one.on("pageerror", lambda error: trouble.append(str(error)))
    one.on("request", lambda request: trouble.append(request.url) if request.url.startswith("http") else None)
    one.goto(page_file.as_uri())
    one.wait_for_selector("button.thumb")
    yield one
    assert trouble == [] and one.title() == "small – stimkit report"
    context.close()


def shown(page: Page) -> list[str]:
    return [thumb.get_attribute("data-id") or "" for thumb in page.locator("#sheet button.thumb").all()]


def test_series_are_drawn_as_strips(browser: Browser, tmp_path: Path) -> None:
    mixes = {
        "sm": {"of": ["cup", "grass"], "steps": 3},
        "geo": {"of": ["grass", "cup"], "steps": 3, "path": "geodesic"},
    }
    images = {"style": {"cup": "skimage:coffee", "grass": "skimage:grass"}, "mixes": mixes}
    factors = {"style_layers": ["one"]}
    stimkit.run(
        small_plan(images=images, factors=factors, synthesis={"max_evaluations": 2}), tmp_path / "run", device="cpu"
    )
    page = browser.new_page()
    page.goto(report(tmp_path / "run", device="cpu", losses=False).as_uri())
    strips = page.locator("#strips .strip")
    expect(strips).to_have_count(2)
    expect(strips.first.locator("button.thumb")).to_have_count(3)
    expect(strips.first).to_contain_text("ratio 1e-05: cupgrass")
    expect(strips.first.locator(".steps")).to_contain_text("sm-2 (0.5)")
    first, _ = (line.get_attribute("points") or "" for line in strips.first.locator("polyline").all())
    heights = [float(point.split(",")[1]) for point in first.split()]
    assert heights == sorted(heights, reverse=True) and heights[0] > heights[-1], "the distance to cup grows"
    page.get_by_label("series").select_option("geo")
    expect(strips.first.locator(".steps")).to_contain_text("grass (0)geo-2 (0.5)cup (1)")
    page.close()


def test_filters_and_axes(page: Page, run: Path) -> None:
    records = stimkit.open_run(run).records
    assert len(shown(page)) == 4 and page.inner_text("#count") == "4 of 4 stimuli"
    page.get_by_label("style_layers", exact=True).select_option("two")
    assert set(shown(page)) == {one for one, record in records.items() if record.levels["style_layers"] == "two"}
    assert page.inner_text("#count") == "2 of 4 stimuli"
    page.get_by_label("rows", exact=True).select_option("ratio")
    page.get_by_label("columns", exact=True).select_option("style_layers")
    assert page.locator("#sheet tbody th").all_inner_texts() == ["1e-05", "0.0001"]
    page.get_by_label("style_layers", exact=True).select_option("")
    assert page.locator("#sheet thead th").all_inner_texts() == ["ratio \\ style_layers", "one", "two"]
    page.get_by_label("finding", exact=True).select_option("not_converged")
    assert 0 < len(shown(page)) <= 4


def test_the_sheet_begins_with_the_design(page: Page, run: Path) -> None:
    heads = [page.locator(f"#sheet {part} th").all_inner_texts() for part in ("thead", "tbody")]
    assert heads == [["style_layers \\ ratio", "1e-05", "0.0001"], ["one", "two"]]
    fields = page.locator("#sheet tbody td").all()
    assert [field.locator("button.thumb").count() for field in fields] == [1, 1, 1, 1], "no piles"
    page.get_by_label("columns", exact=True).select_option("style_layers")
    assert page.locator("#sheet thead th").all_inner_texts() == ["ratio \\ style_layers", "one", "two"]


def test_verdicts_are_saved_and_applied(page: Page, run: Path, tmp_path: Path) -> None:
    order = shown(page)
    page.locator("#sheet button.thumb").first.focus()
    page.keyboard.press("r")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("n")
    page.keyboard.type("- rings 1\u200b\U0001f468\u200d\U0001f33e")
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    page.locator("#curator").fill("Ada")
    page.locator("#curator").blur()
    expect(page.locator("#curation-count")).to_have_text("1 keep, 1 reject, 1 unsure")
    page.get_by_label("verdict", exact=True).select_option("reject")
    assert shown(page) == order[:1]
    page.get_by_label("verdict", exact=True).select_option("none")
    assert shown(page) == order[3:]
    with page.expect_download() as download:
        page.locator("#save-curation").click()
    download.value.save_as(saved := tmp_path / "curation.json")
    found = read_curation(saved)
    assert found.curator == "Ada" and [(one.stimulus_id, one.verdict, one.note) for one in found.verdicts] == [
        (order[0], "reject", ""),
        (order[1], "keep", ""),
        (order[2], "unsure", "- rings 1 \U0001f468 \U0001f33e"),
    ]
    assert all(one.file_sha256 == stimkit.open_run(run).records[one.stimulus_id].file_sha256 for one in found.verdicts)
    page.reload()
    expect(page.locator("#curation-count")).to_have_text("1 keep, 1 reject, 1 unsure")
    assert page.locator("#sheet button.thumb").first.get_attribute("data-verdict") == "reject"


def test_a_report_goes_on_from_verdicts_that_were_applied(browser: Browser, run: Path, tmp_path: Path) -> None:
    records = list(stimkit.open_run(run).records.values())
    row = {
        "stimulus_id": records[0].stimulus_id,
        "file_sha256": records[0].file_sha256,
        "verdict": "reject",
        "note": "",
    }
    told = {"schema": 1, "set": "small", "curator": "Ada", "verdicts": [{**row, "at": "2026-11-26T18:30:00Z"}]}
    (tmp_path / "ada.json").write_text(json.dumps(told))
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    asked = {**document(accept={"curation": "ada.json"}), "description": HOSTILE}
    stimkit.run(stimkit.plan(stimkit.Protocol.from_dict(asked, base=tmp_path)), folder, device="cpu")
    page = browser.new_page()
    page.goto(report(folder, device="cpu", losses=False).as_uri())
    expect(page.locator("#curation-count")).to_have_text("1 reject")
    assert page.locator("#curator").input_value() == "Ada"
    assert "Ada looked at 1 of these files and rejected 1 in all." in page.inner_text("#methods-text")
    other = json.dumps({**told, "set": "other"})
    page.locator("#load-curation").set_input_files(
        {"name": "c.json", "mimeType": "application/json", "buffer": other.encode()}
    )
    expect(page.locator("#curation-count")).to_have_text("that file is about the set other")
    page.close()


def test_a_stimulus_under_the_pointer_is_marked_everywhere(page: Page) -> None:
    page.locator("#distribution-plot .boxlayer").first.wait_for()
    page.locator("#sheet button.thumb").nth(1).hover()
    expect(page.locator("#distribution-plot .shapelayer path")).to_have_count(1)
    points = "document.getElementById('trace-plot').data.at(-1).x.length"
    assert page.evaluate(points) > 0
    page.locator("h1").hover()
    expect(page.locator("#distribution-plot .shapelayer path")).to_have_count(0)
    assert page.evaluate(points) == 0
    page.evaluate(
        "document.getElementById('distribution-plot').emit('plotly_hover', {points: [{text: DATA.stimuli[2].id}]})"
    )
    expect(page.locator("#sheet .thumb.marked")).to_have_count(1)
    assert page.locator("#sheet .thumb.marked").get_attribute("data-id") == page.evaluate("DATA.stimuli[2].id")


def test_pixels_of_the_stimulus_are_pixels_of_the_screen(page: Page, run: Path) -> None:
    page.locator("#sheet button.thumb").first.click()
    page.keyboard.press("1")
    large = page.locator("#detail-body img.large")
    expect(large).to_have_css("image-rendering", "pixelated")
    box = large.bounding_box()
    assert box is not None and box["width"] == 32 == box["height"]
    page.keyboard.press("1")
    expect(large).to_have_css("image-rendering", "auto")


def test_narrow_screens_do_not_scroll_sideways(page: Page) -> None:
    page.set_viewport_size({"width": 380, "height": 800})
    page.locator("#sheet button.thumb").first.click()
    page.keyboard.press("Escape")
    page.wait_for_function("document.documentElement.scrollWidth <= 380")


def test_a_click_shows_a_stimulus_and_keys_move_on(page: Page, run: Path) -> None:
    records = stimkit.open_run(run).records
    order = shown(page)
    page.locator("#sheet button.thumb").first.click()
    assert page.locator("#detail").is_visible() and order[0] in page.inner_text("#detail-title")
    body = page.inner_text("#detail-body")
    total = records[order[0]].losses.file.total
    assert f"{total:#.4g}" in body and "Neighbours in the design" in body and "mean_luminance" in body
    expect(page.locator("#detail-trace .scatterlayer .trace")).to_have_count(3)
    page.keyboard.press("ArrowRight")
    assert order[1] in page.inner_text("#detail-title")
    page.keyboard.press("ArrowLeft")
    page.locator("#detail .neighbours button.thumb").first.click()
    assert order[0] not in page.inner_text("#detail-title")
    page.keyboard.press("Escape")
    assert not page.locator("#detail").is_visible()


def test_the_sheet_is_walked_with_the_keyboard(page: Page) -> None:
    order = shown(page)
    focused = "document.activeElement.dataset.id"
    page.locator("#sheet button.thumb").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == order[1]
    page.keyboard.press("ArrowDown")
    below = page.evaluate(focused)
    assert below not in order[:2]
    page.keyboard.press("ArrowUp")
    assert page.evaluate(focused) == order[1]
    page.keyboard.press("Enter")
    assert order[1] in page.inner_text("#detail-title")
    page.keyboard.press("Escape")
    assert page.evaluate(focused) == order[1], "the focus goes back to where it was"


def test_a_finding_leads_to_its_stimulus(page: Page) -> None:
    assert "warning" in page.inner_text("#verdict")
    page.locator("#finding-list summary", has_text="not_converged").click()
    link = page.locator("#finding-list button.link").first
    link.click()
    assert link.inner_text() in page.inner_text("#detail-title")
    assert "not_converged" in page.inner_text("#detail-body")


def test_plots_follow_their_controls(page: Page) -> None:
    expect(page.locator("#trace-plot .scatterlayer .trace")).to_have_count(3)  # two ends of a band and its median
    page.get_by_label("by", exact=True).select_option("ratio")
    expect(page.locator("#trace-plot .scatterlayer .trace")).to_have_count(6)
    page.get_by_label("variable", exact=True).select_option(label="entropy")
    page.get_by_label("factor", exact=True).select_option("ratio")
    expect(page.locator("#distribution-plot .boxlayer .trace")).to_have_count(2)
    assert "entropy" in page.inner_text("#effect-table")


def test_a_dark_room_and_paper(page: Page) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_label("Theme").select_option("dark")
    dark = page.evaluate(background)
    assert light != dark and max(map(int, re.findall(r"\d+", dark))) < 20
    page.emulate_media(media="print")
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#finding-list li").first.is_visible()
    more = "document.querySelector('#finding-list ul').append(document.createElement('li'))"
    for _ in range(9):
        page.evaluate(more)
    assert page.evaluate("getComputedStyle(document.querySelector('#finding-list li:last-child')).display") == "none"
    expect(page.locator("#trace-plot .main-svg").first).to_have_css("width", "680px")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert not page.locator("#finding-list li").first.is_visible()
    assert not page.locator("#controls").is_visible() and page.locator("#sheet").is_visible()
    assert page.evaluate("getComputedStyle(document.getElementById('sheet')).maxHeight") == "none"


def test_the_methods_can_be_copied(page: Page) -> None:
    page.locator("#copy").click()
    assert page.evaluate("getSelection().toString()").startswith("4 stimuli (32 × 32 px)")
