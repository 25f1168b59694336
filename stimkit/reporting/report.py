"""The report of a run: its audit and its stimuli as one HTML file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from stimkit.auditing.audit import Examination, examine
from stimkit.documents.progress import OnPhase, show_phases
from stimkit.errors import RunFolderError
from stimkit.files import json_text, storage_errors, write_atomically
from stimkit.records.bibliography import bibliography
from stimkit.records.methods import methods_paragraph
from stimkit.reporting.contents import gather_contents, thumbnails_for
from stimkit.runfolder.run import AnyRun, Run, read_run
from stimkit.version import __version__

REPORT_FILE = "report.html"  # in the run folder


def report(
    run: AnyRun,
    out: str | Path | None = None,
    *,
    inputs: Sequence[str | Path] = (),
    device: str = "auto",
    losses: bool = True,
    on_phase: OnPhase | None = None,
    progress: bool | None = None,
) -> Path:
    """Audit a run and write a page about it, RUN/report.html or `out`, that opens without network or server.

    >>> stimkit.report("runs/quickstart").name
    'report.html'

    The other arguments are those of `stimkit.audit`. Raises `RunFolderError` where the folder is not a run folder, its
    resolved protocol does not describe it, or it has no complete stimulus yet.
    """
    run = read_run(run)
    if not run.records:
        raise RunFolderError(f"{run.path} has no complete stimulus yet")
    portray = thumbnails_for(run)
    with show_phases(on_phase, progress) as tell:
        found = examine(run, inputs=inputs, device=device, losses=losses, on_phase=tell, portray=portray)
    return write_report(run, found, run.path / REPORT_FILE if out is None else Path(out), losses_checked=losses)


def write_report(run: Run, found: Examination, target: Path, *, losses_checked: bool) -> Path:
    """Write the page about a run that was examined with `thumbnails_for`. Raises `StorageError`."""
    environments = _environments(run)
    html = _page(
        data=_script_safe(gather_contents(run, found)),
        plan=run.plan,
        found=found.audit,
        losses_checked=losses_checked,
        methods=methods_paragraph(run.plan, list(run.records.values()), environments),
        environments={key: json_text(environment) for key, environment in environments.items()},
        references=bibliography(run.plan, run.measurements),
        version=__version__,
    )
    with storage_errors(target):
        write_atomically(target, html.encode())
    return target


def _environments(run: Run) -> dict[str, Any]:
    try:
        return run.environments
    except RunFolderError:  # which is among the findings
        return {}


def _page(**values: Any) -> str:
    folder = files("stimkit.reporting") / "page"
    names = ("page.html", "page.css", "page.js", "plots.js", "curation.js", "start.js")
    template, style, *scripts = ((folder / name).read_text("utf-8") for name in names)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(template).render(
        style=style, script="\n".join(scripts), plotly=get_plotlyjs(), **values
    )


def _script_safe(data: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
