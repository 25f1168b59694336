"""A run while it is made: notes, `status --watch`, and the page of `watch`, which answers about this run alone."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

import stimkit
from stimkit.errors import UsageError
from stimkit.reporting.watching import open_server
from stimkit.runfolder.notes import ProgressNote, read_notes
from stimkit.running.events import Event
from tests.conftest import Stop, small_plan, stop_after

Ask = Callable[..., tuple[int, bytes]]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four cells, of which two are made."""
    folder = tmp_path_factory.mktemp("watched") / "run"
    with pytest.raises(Stop):
        stimkit.run(small_plan(), folder, device="cpu", batch_size=1, on_event=stop_after(2))
    return folder


@pytest.fixture
def port(half: Path) -> Iterator[int]:
    with open_server(half) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def ask(port: int) -> Ask:
    def get(path: str, host: str = "localhost", method: str = "GET") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request(method, path, headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read()

    return get


def test_the_state_is_that_of_the_folder(half: Path, ask: Ask) -> None:
    status, text = ask("/state.json")
    state: dict[str, Any] = json.loads(text)
    run = stimkit.open_run(half)
    assert status == 200 and state["planned"] == 4 and state["counts"] == {"accepted": 2, "rejected": 0, "failed": 0}
    assert state["title"] == "small" and state["writer"] == "" and state["sessions"] == []
    for one in state["stimuli"]:
        record = run.records.get(one["id"])
        assert one["status"] == (record.status if record else "pending")
        if record:
            assert one["loss"] == record.losses.file.total
            assert one["words"] == f"{record.levels['style_layers']} · {record.levels['ratio']}"
            picture = (half / "stimuli" / record.filename).read_bytes()
            assert ask(f"/stimuli/{one['id']}?{one['version']}") == (200, picture)
        else:
            assert ask(f"/stimuli/{one['id']}")[0] == 404


def test_it_answers_about_this_run_alone(ask: Ask, port: int) -> None:
    for path in ("/protocol.toml", "/stimuli/../protocol.toml", "/stimuli/%2e%2e/protocol.toml", "//etc/passwd", "/x"):
        assert ask(path)[0] == 404
    assert ask("/state.json", host="evil.example")[0] == 403
    assert ask("/state.json", host=f"evil.example:{port}")[0] == 403
    assert ask("/", host=f"127.0.0.1:{port}")[0] == 200
    assert ask("/state.json", method="POST")[0] == 501


def test_the_page_fills(half: Path, port: int, browser: Browser, tmp_path: Path) -> None:
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{port}/")
    expect(page.locator("img")).to_have_count(2)
    expect(page.locator("#counts")).to_have_text("2 of 4 stimuli")
    assert page.evaluate("[...document.images].every((one) => one.decode() && one.naturalWidth > 0)")
    stimkit.run(small_plan(), half, device="cpu")
    expect(page.locator("img")).to_have_count(4)
    expect(page.locator("#counts")).to_have_text("4 of 4 stimuli")
    page.close()


def test_sessions_keep_a_note_of_how_far_they_are(tmp_path: Path) -> None:
    seen: list[ProgressNote] = []

    def look(event: Event) -> None:
        seen.extend(read_notes(tmp_path / "run"))

    stimkit.run(small_plan(), tmp_path / "run", device="cpu", on_event=look)
    assert seen and seen[0].total == 4 and seen[0].done <= 4
    assert read_notes(tmp_path / "run") == [] and not list((tmp_path / "run").glob(".progress*"))
    assert stimkit.verify(tmp_path / "run").findings == ()
    for name, text in (("a", "{"), ("b", '{"done": "x"}'), ("c", "[]")):
        (tmp_path / f".progress-{name}.json").write_text(text)
    old = tmp_path / ".progress-d.json"
    old.write_text(json.dumps(vars(seen[0])))
    assert read_notes(tmp_path) == [seen[0]]
    os.utime(old, (time.time() - 1000,) * 2)
    assert read_notes(tmp_path) == []


def test_a_watched_status_ends_where_nobody_writes(half: Path, command: Command) -> None:
    code, out, err = command("status", half, "--watch")
    assert code == 0 and "cells · no process is writing it" in err and "stimuli done" in out
    assert command("status", half, "--watch", "--json")[0] == 2


def test_names_of_others_are_text(half: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(half, tmp_path / "run"))
    lock = json.loads((folder / "protocol.lock.json").read_text())
    lock["protocol"]["name"] = "x</title><script>1</script>"
    (folder / "protocol.lock.json").write_text(json.dumps(lock))
    with open_server(folder) as server:
        handler: Any = server.RequestHandlerClass
        assert b"<script>1" not in handler.html and b"&lt;script&gt;1" in handler.html


def test_a_server_of_all_addresses_answers_by_number(half: Path) -> None:
    with open_server(half, "0.0.0.0") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for host, status in (("192.0.2.7:80", 200), ("LOCALHOST", 200), ("evil.example", 403), ("", 403)):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
            connection.request("GET", "/", headers={"Host": host})
            assert connection.getresponse().status == status, host
        server.shutdown()


def test_looking_writes_nothing(half: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(half, tmp_path / "run", ignore=shutil.ignore_patterns(".lock*")))
    before = sorted(path.name for path in folder.iterdir())
    with open_server(folder) as server:
        handler: Any = server.RequestHandlerClass
        handler.contents.state()
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_watched_status_renews_its_line_on_a_terminal(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from stimkit.cli import progress

    terminal = StringIO()
    monkeypatch.setattr(progress, "err", Console(file=terminal, force_terminal=True, width=60))
    progress.watch_run(half)
    assert "cells" in terminal.getvalue() and "\\r" not in terminal.getvalue()


@pytest.mark.parametrize("host", ["", "a\0b", "no.such.host.invalid"])
def test_hosts_that_are_none(half: Path, host: str) -> None:
    with pytest.raises(UsageError):
        open_server(half, host)


def test_addresses_that_cannot_be_used(half: Path, port: int) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        open_server(half, port=port)
    with pytest.raises(UsageError, match="cannot be used"):
        open_server(half, port=70_000)
