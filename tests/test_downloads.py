"""Downloads from a server on this machine: whole, damaged, missing, broken off."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stimkit.downloads import DownloadError, download

DATA = b"what was published" * 100
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """Gives the file as /whole, and half of it as /half, though it promises all."""

    def do_GET(self) -> None:
        if self.path not in ("/whole", "/half"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.wfile.write(DATA if self.path == "/whole" else DATA[: len(DATA) // 2])

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{one.server_port}"
        one.shutdown()


def test_a_file_is_downloaded_once(server: str, tmp_path: Path) -> None:
    found = download(f"{server}/whole", DIGEST, tmp_path / "kept" / "file.bin")
    assert found == tmp_path / "kept" / "file.bin" and found.read_bytes() == DATA
    assert download("http://127.0.0.1:9/whole", DIGEST, found) == found


@pytest.mark.parametrize(
    ("path", "digest", "why"),
    [
        ("{server}/whole", "sha256:" + "0" * 64, r"has changed: it is not sha256 0{17}…"),
        ("{server}/other", DIGEST, r"could not be downloaded: 127\.0\.0\.1 answers 404 Not Found$"),
        ("{server}/half", DIGEST, r"could not be downloaded: the connection to 127\.0\.0\.1 broke off$"),
        ("http://127.0.0.1:9/whole", DIGEST, r"could not be downloaded: 127\.0\.0\.1 cannot be reached$"),
    ],
    ids=["damaged", "missing", "half", "no server"],
)
def test_failures_are_told_in_words_and_keep_nothing(
    path: str, digest: str, why: str, server: str, tmp_path: Path
) -> None:
    with pytest.raises(DownloadError, match=why):
        download(path.format(server=server), digest, tmp_path / "file.bin")
    assert list(tmp_path.iterdir()) == []
