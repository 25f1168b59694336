"""Files of the web: downloaded once, checked against a digest, and failures told in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stimkit.errors import StimkitError

PATIENCE = 60  # seconds without a byte


class DownloadError(StimkitError):
    """A file could not be downloaded, or is not the one that was published."""


def download(url: str, digest: str, target: Path, progress: Any = False) -> Path:
    """Download a file unless it is there, and return its path; `digest` is `algorithm:hexadecimal`.

    `progress` is what `pooch.HTTPDownloader` takes. Raises `DownloadError`, which says why in words; nothing is kept
    then.
    """
    import pooch

    transfer = pooch.HTTPDownloader(progressbar=progress, timeout=PATIENCE)
    try:
        return Path(pooch.retrieve(url, digest, fname=target.name, path=target.parent, downloader=transfer))
    except ValueError as error:
        published = digest.replace(":", " ")[:24]
        raise DownloadError(f"{url} was damaged on its way or has changed: it is not {published}…") from error
    except OSError as error:  # requests' errors are OSErrors, too
        raise DownloadError(f"{url} could not be downloaded: {_why(error, urlsplit(url).hostname or url)}") from error


def _why(error: OSError, host: str) -> str:
    """Why nothing came from a host, without what only the libraries on the way understand."""
    from requests import exceptions

    match error:
        case exceptions.HTTPError() if error.response is not None:
            return f"{host} answers {error.response.status_code} {error.response.reason}"
        case exceptions.Timeout():
            return f"{host} did not answer within {PATIENCE} s"
        case exceptions.SSLError():
            return f"the certificate of {host} is not accepted"
        case exceptions.ProxyError():
            return f"the proxy on the way to {host} cannot be reached"
        case exceptions.ChunkedEncodingError():
            return f"the connection to {host} broke off"
        case exceptions.ConnectionError():
            return f"{host} cannot be reached"
    return error.strerror or str(error)
