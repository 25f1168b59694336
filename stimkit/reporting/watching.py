"""A run as it fills, as a page of a small server that only reads; for this machine, unless asked otherwise."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
from collections.abc import Mapping
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from ipaddress import ip_address
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
WILDCARDS = ("0.0.0.0", "::")  # all addresses of the machine
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
        known = {"id": stimulus_id, "words": self._words.get(stimulus_id, "")}
        if record is None:
            return {**known, "status": "unreadable" if changed else "pending"}
        return {**known, "status": record.status, "version": str(changed), "loss": record.losses.file.total}


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
    if not host:
        raise UsageError("give an address: 127.0.0.1 is this machine's own, 0.0.0.0 stands for all of them")
    watched = Watched(run)
    page = _page(watched.title)
    names = {*LOCAL, host.lower(), f"[{host.lower()}]"}
    if host in WILDCARDS:
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    class Handler(_Handler):
        """Answers about this run."""

        contents, html, hosts, by_number = watched, page, frozenset(names), host in WILDCARDS

    try:
        return _Server((host, port), Handler)
    except (OSError, OverflowError, TypeError, ValueError) as error:
        raise UsageError(f"{host}:{port} cannot be used: {getattr(error, 'strerror', None) or error}") from None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[_Handler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of browsers that are gone."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def _page(title: str) -> bytes:
    text = (files("stimkit.reporting") / "page" / "watch.html").read_text("utf-8")
    return text.replace("{{ title }}", escape(title)).encode()


class _Handler(BaseHTTPRequestHandler):
    contents: Watched
    html: bytes
    hosts: frozenset[str]
    by_number: bool
    """Whether any address in numbers is one of this server, which listens on all of them."""

    def do_GET(self) -> None:
        """Answer with the page, the state, or a stimulus."""
        if not self._is_ours(re.sub(r":[0-9]+$", "", self.headers.get("Host", "").lower())):
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

    def _is_ours(self, name: str) -> bool:
        if name in self.hosts:
            return True
        try:
            return self.by_number and bool(ip_address(name.strip("[]")))
        except ValueError:
            return False

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
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a page asks every two seconds."""
