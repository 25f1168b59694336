"""A run as it fills, as a page of a small server that only reads; for this machine, unless asked otherwise."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from stimkit.errors import RunFolderError, UsageError
from stimkit.files import json_values, read_file
from stimkit.records.schema import Record
from stimkit.runfolder.locks import current_writers
from stimkit.runfolder.notes import read_notes
from stimkit.runfolder.run import Run, read_run

LOCAL = ("127.0.0.1", "localhost", "[::1]")
POLICY = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"


class Watched:
    """A run folder that is looked at again and again: only records that came or changed are read."""

    def __init__(self, run: str | Path) -> None:
        self._run: Run = read_run(run)
        self._records: dict[str, tuple[int, Record | None]] = {}
        self._turn = threading.Lock()
        self._words = _words_of(self._run)

    @property
    def title(self) -> str:
        """Name of the protocol."""
        return str(self._run.resolved["protocol"]["name"])

    def state(self) -> dict[str, Any]:
        """Everything that the page shows, as JSON takes it."""
        with self._turn:
            self._read_new()
            stimuli = [self._stimulus(cell) for cell in self._run.planned]
        counts = {name: sum(one["status"] == name for one in stimuli) for name in ("accepted", "rejected", "failed")}
        notes = read_notes(self._run.path)
        return {
            "title": self.title,
            "planned": len(stimuli),
            "counts": counts,
            "writer": current_writers(self._run.path),
            "sessions": [json_values(vars(note)) for note in notes],
            "stimuli": stimuli,
        }

    def picture(self, stimulus_id: str) -> bytes | None:
        """The file of a stimulus; None where there is none."""
        with self._turn:
            _, record = self._records.get(stimulus_id, (0, None))
        if record is None or record.status == "failed":
            return None
        try:
            return read_file(self._run.path / "stimuli" / self._run.filename(record))
        except OSError:
            return None

    def _read_new(self) -> None:
        store = self._run.store
        for stimulus_id in store.completed() & set(self._run.planned):
            try:
                changed = store.record_path(stimulus_id).stat().st_mtime_ns
                if self._records.get(stimulus_id, (0, None))[0] != changed:
                    self._records[stimulus_id] = changed, store.record(stimulus_id)
            except OSError:  # it is being replaced
                continue
            except RunFolderError:
                self._records[stimulus_id] = changed, None

    def _stimulus(self, stimulus_id: str) -> dict[str, Any]:
        changed, record = self._records.get(stimulus_id, (0, None))
        if record is None:
            words = self._words.get(stimulus_id, "")
            return {"id": stimulus_id, "status": "unreadable" if changed else "pending", "words": words}
        return {
            "id": stimulus_id,
            "status": record.status,
            "version": str(changed),
            "words": self._words.get(stimulus_id, ""),
            "loss": record.losses.file.total,
        }


def _words_of(run: Run) -> dict[str, str]:
    """The levels of each cell, but for those that all cells have."""
    try:
        cells = run.plan.by_id
    except RunFolderError:  # which `verify` tells
        return {}
    seen: dict[str, set[str]] = {}
    for cell in cells.values():
        for name, level in cell.levels.items():
            seen.setdefault(name, set()).add(level)
    varied = [name for name, levels in seen.items() if len(levels) > 1]
    return {
        name: " · ".join(cell.levels[one] for one in varied if cell.levels.get(one)) for name, cell in cells.items()
    }


def open_server(run: str | Path, host: str = "127.0.0.1", port: int = 0) -> ThreadingHTTPServer:
    """A server of the page of a run folder; `serve_forever` lets it answer, port 0 takes one that is free.

    It answers GET alone, with the page, the state of the run and its stimuli, and only requests to its own address, so
    that pages from elsewhere cannot ask it through a browser. Raises `RunFolderError` where the folder is not a run
    folder, `UsageError` where the address cannot be used.
    """
    watched = Watched(run)
    page = _page(watched.title)

    class Handler(_Handler):
        """Answers about this run."""

        contents = watched
        html = page
        hosts = (*LOCAL, host)

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except (OSError, OverflowError) as error:
        raise UsageError(f"{host}:{port} cannot be used: {getattr(error, 'strerror', None) or error}") from None
    server.daemon_threads = True
    return server


def _page(title: str) -> bytes:
    text = (files("stimkit.reporting") / "page" / "watch.html").read_text("utf-8")
    return text.replace("{{ title }}", title).encode()  # names of protocols have letters, digits, dots, hyphens


class _Handler(BaseHTTPRequestHandler):
    contents: Watched
    html: bytes
    hosts: tuple[str, ...]

    def do_GET(self) -> None:
        """Answer with the page, the state, or a stimulus."""
        asked = self.headers.get("Host", "")
        if asked.rpartition(":")[0] not in self.hosts and asked not in self.hosts:
            self.send_error(HTTPStatus.FORBIDDEN, "not an address of this server")
            return
        path = unquote(urlsplit(self.path).path)
        if path == "/":
            self._answer(self.html, "text/html; charset=utf-8")
        elif path == "/state.json":
            self._answer(json.dumps(self.contents.state(), allow_nan=False).encode(), "application/json")
        elif path.startswith("/stimuli/") and (png := self.contents.picture(path.removeprefix("/stimuli/"))):
            self._answer(png, "image/png", keep=True)
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _answer(self, data: bytes, kind: str, *, keep: bool = False) -> None:
        self.send_response(HTTPStatus.OK)
        headers: Mapping[str, str] = {
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            "Cache-Control": "max-age=3600" if keep else "no-store",
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(data)
        except ConnectionError:  # whoever asked is gone
            return

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a page asks every two seconds."""
