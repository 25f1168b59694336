"""How two protocols or runs differ, as one HTML file that needs nothing else: pictures side by side."""

from __future__ import annotations

import base64
import io
from collections.abc import Sized
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from stimkit.differences.changes import Change, Compared, Difference
from stimkit.differences.words import cell_words, counts_in_words, short_value
from stimkit.errors import ImageError, RunFolderError
from stimkit.files import storage_errors, write_atomically
from stimkit.images.png import to_picture
from stimkit.planning.cells import Cell
from stimkit.version import __version__

PICTURE_SIDE = 192  # pixels
MOST_SHOWN = 300  # pairs of pictures

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="generator" content="stimkit {{ version }}"><title>{{ a }} and {{ b }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } th, td { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top; }
td { border-top: 1px solid color-mix(in srgb, currentColor 20%, transparent); overflow-wrap: anywhere; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(26rem, 1fr)); gap: 1.5rem; }
figure { margin: 0; } figure div { display: flex; gap: .5rem; } img { image-rendering: auto; max-width: 12rem; }
figcaption { font-size: 13px; overflow-wrap: anywhere; } .none { width: 12rem; opacity: .6; }
@media (max-width: 40rem) { .pairs { grid-template-columns: 1fr; } }
</style></head><body>
<h1>{{ a }} → {{ b }}</h1>
<p>{{ counts }}.{% if left_out %} Of each kind, the first {{ left_out }} are shown.{% endif %}</p>
{% if protocol %}<h2>Protocol</h2>
<table><tr><th>key</th><th>before</th><th>after</th></tr>
{% for key, (one, other) in protocol.items() %}<tr><td>{{ key }}</td><td>{{ one }}</td><td>{{ other }}</td></tr>
{% endfor %}</table>{% endif %}
{% for title, pairs in (("Changed", changed), ("Made otherwise", remade)) if pairs %}<h2>{{ title }}</h2>
<div class="pairs">{% for pair in pairs %}<figure><div>
{% for picture in pair.pictures %}{% if picture %}<img src="{{ picture }}" alt="">{% else %}
<span class="none">not made</span>{% endif %}{% endfor %}</div>
<figcaption><strong>{{ pair.words }}</strong><br>
{% for key, (one, other) in pair.changes %}{{ key }}: {{ one }} → {{ other }}<br>{% endfor %}</figcaption></figure>
{% endfor %}</div>{% endfor %}
{% for title, cells in (("Came", came), ("Went", went)) if cells %}<h2>{{ title }}</h2>
<div class="pairs">{% for cell in cells %}<figure><div>
{% if cell.picture %}<img src="{{ cell.picture }}" alt="">{% endif %}</div>
<figcaption><strong>{{ cell.words }}</strong></figcaption></figure>{% endfor %}</div>{% endfor %}
</body></html>
"""


def write_difference(found: Difference, target: Path) -> Path:
    """Write a page about a difference, with at most 300 pictures or pairs of each kind. Raises `StorageError`."""
    one, other = found.sides
    kinds: tuple[Sized, ...] = (found.changed, found.remade, found.came, found.went)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    html = environment.from_string(_PAGE).render(
        version=__version__,
        a=one.name,
        b=other.name,
        counts=counts_in_words(found),
        left_out=MOST_SHOWN if max(map(len, kinds)) > MOST_SHOWN else 0,
        protocol={key: (short_value(a), short_value(b)) for key, (a, b) in found.protocol.items()},
        changed=[_pair(change, one, other) for change in found.changed[:MOST_SHOWN]],
        remade=[_pair(change, one, other) for change in found.remade[:MOST_SHOWN]],
        came=[_single(cell, other) for cell in found.came[:MOST_SHOWN]],
        went=[_single(cell, one) for cell in found.went[:MOST_SHOWN]],
    )
    with storage_errors(target):
        write_atomically(target, html.encode())
    return target


def _pair(change: Change, one: Compared, other: Compared) -> dict[str, Any]:
    losses = [_loss(one, change.before), _loss(other, change.after)]
    keys = dict(change.keys)
    if None not in losses and "total loss" not in keys:
        keys["total loss"] = (losses[0], losses[1])
    return {
        "pictures": (_picture(one, change.before), _picture(other, change.after)),
        "words": cell_words(change.after),
        "changes": [(key, (short_value(a), short_value(b))) for key, (a, b) in keys.items()],
    }


def _single(cell: Cell, side: Compared) -> dict[str, Any]:
    return {"picture": _picture(side, cell), "words": cell_words(cell)}


def _loss(side: Compared, cell: Cell) -> float | None:
    record = side.record(cell)
    return record.losses.file.total if record else None


def _picture(side: Compared, cell: Cell) -> str | None:
    """A stimulus as a data URL; None where there is none."""
    record = side.record(cell)
    if side.run is None or record is None or record.status == "failed":
        return None
    try:
        image = to_picture(side.run.image(cell.id), record.settings.encoding)
    except (ImageError, RunFolderError):
        return None
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
