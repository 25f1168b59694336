"""The report of a run: its audit and its stimuli as one HTML file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from stimkit.auditing.audit import OnPhase, audit
from stimkit.errors import RunFolderError
from stimkit.files import storage_errors, write_atomically
from stimkit.planning.resolved import plan_of
from stimkit.records.methods import methods_paragraph
from stimkit.reporting.contents import report_data
from stimkit.runfolder.store import RunStore
from stimkit.version import __version__

FILE = "report.html"


def report(
    run: str | Path,
    out: str | Path | None = None,
    *,
    inputs: Sequence[str | Path] = (),
    device: str = "auto",
    losses: bool = True,
    on_phase: OnPhase | None = None,
) -> Path:
    """Audit a run and write a page about it, RUN/report.html or `out`, that opens without network or server.

    The other arguments are those of `stimkit.auditing.audit.audit`. Raises `RunFolderError` where the folder is no run
    folder, its lock does not describe it, or it has no complete stimulus yet.
    """
    show = on_phase or (lambda phase, done, total: None)
    store = RunStore.open(run)
    plan = plan_of(store.lock_contents(), base=store.origin())
    records = store.readable(plan.by_id)
    if not records:
        raise RunFolderError(f"{run} has no complete stimulus yet")
    found = audit(run, inputs=inputs, device=device, losses=losses, on_phase=on_phase)
    environments = _environments(store)
    html = _page(
        data=_script_safe(report_data(store, plan, records, found, partial(show, "thumbnails"))),
        plan=plan,
        found=found,
        losses_checked=losses,
        methods=methods_paragraph(plan, records, environments),
        environments={key: json.dumps(one, indent=1) for key, one in environments.items()},
        version=__version__,
    )
    target = store.path / FILE if out is None else Path(out)
    with storage_errors(target):
        write_atomically(target, html.encode())
    return target


def _environments(store: RunStore) -> dict[str, Any]:
    try:
        return store.environments()
    except RunFolderError:  # which is among the findings
        return {}


def _page(**values: Any) -> str:
    folder = files("stimkit.reporting") / "page"
    template, style, script = ((folder / name).read_text("utf-8") for name in ("page.html", "page.css", "page.js"))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(template).render(style=style, script=script, plotly=get_plotlyjs(), **values)


def _script_safe(data: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
