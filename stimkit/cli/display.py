"""What the command line shows: progress of a run, summaries, tables."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table

from stimkit.cli.terminal import err, out, visible

if TYPE_CHECKING:
    import pandas as pd

    from stimkit.auditing.audit import Audit
    from stimkit.auditing.regeneration import Comparison
    from stimkit.auditing.verification import Verification
    from stimkit.experiment.trials.lists import TrialLists
    from stimkit.runfolder.run import RunState
    from stimkit.running.events import Event, OnEvent, RunSummary

SHOWN = 5  # findings of a kind
MAX_RUNNING = 2  # batches whose state is shown
LARGE_EFFECT = 0.14  # omega squared (Cohen 1988)


def duration(seconds: float) -> str:
    """Write a time span in words: 42 s, 3 min 10 s, 5 h 20 min."""
    if not math.isfinite(seconds):
        return "unknown"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(count: float) -> str:
    """Write a number of bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


class _Clock:
    """Time left, from the share of this command's work that is done."""

    def __init__(self) -> None:
        self._began, self._before = time.perf_counter(), -1

    def left(self, event: Event) -> float:
        if self._before < 0:
            self._before = event.done - (event.outcome is not None)
        part = min(1.0, (event.done - self._before + event.share) / (event.total - self._before))
        elapsed = time.perf_counter() - self._began
        return elapsed * (1 - part) / part if part > 0 else math.inf


@contextmanager
def run_display(device: str, total: int) -> Iterator[OnEvent]:
    """Yield a callback for `run`: a live display on a terminal, a line a cell elsewhere."""
    clock = _Clock()
    if not err.is_terminal:
        yield lambda event: _print_line(event, clock.left(event))
        return
    name, state = TextColumn("{task.description}"), TextColumn("{task.fields[state]}")
    with Progress(SpinnerColumn(), name, BarColumn(bar_width=20), state, console=err, transient=True) as progress:
        task = progress.add_task(device, total=total, state="")

        def show(event: Event) -> None:
            if event.note:
                err.print(event.note)
            parts = [f"{event.done}/{event.total} cells"]
            for one in event.running[:MAX_RUNNING]:
                parts.append(f"evaluation {one.progress.evaluation}/{one.progress.max_evaluations}")
                if math.isfinite(one.progress.relative_loss):
                    parts.append(f"loss × {one.progress.relative_loss:.1e}")
            if len(event.running) > MAX_RUNNING:
                parts.append(f"{len(event.running)} workers")
            parts.append(f"{duration(clock.left(event))} left")
            progress.update(task, total=event.total, completed=event.done + event.share, state=" · ".join(parts))

        yield show


def _print_line(event: Event, left: float) -> None:
    if event.note:
        err.print(event.note)
    if event.outcome is None:
        return
    cell = event.outcome
    state = "" if cell.status == "accepted" else f"  {cell.status.upper()}: {cell.status_reason}"
    err.print(
        f"[{event.done}/{event.total}] {cell.filename}  total loss {_number(cell.total_loss)}"
        f"  {cell.evaluations} evaluations ({cell.stop_reason})  {duration(left)} left{state}",
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def show_run_summary(summary: RunSummary) -> None:
    """Print what a run did."""
    before = f", {summary.done_before} were there before" if summary.done_before else ""
    out.print(
        f"{summary.made} of {summary.planned} cells made in {duration(summary.seconds)}{before}"
        + (f"; {summary.device}" if summary.device else "")
    )
    if summary.stop_reasons:
        out.print(
            "stopped by: " + ", ".join(f"{reason} {count}" for reason, count in sorted(summary.stop_reasons.items()))
        )
    for what, ids in (("rejected", summary.rejected), ("failed", summary.failed)):
        if ids:
            out.print(f"{len(ids)} {what} (see status_reason in manifest.csv): {_some(ids)}")
    if summary.pending:
        out.print(f"{summary.pending} are pending")
    out.print(f"stimuli       {summary.path / 'stimuli'}")
    if summary.has_tables:
        out.print(f"manifest      {summary.path / 'manifest.csv'}, manifest.nc, losses.csv")
        out.print(f"contact sheet {summary.path / 'contact_sheet.png'}")
    else:
        out.print(f"tables        by `stimkit collect {summary.path}`, when all shards are made")


@contextmanager
def phases() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a callback for `phase, done, total`: a bar for each phase on a terminal, nothing elsewhere."""
    if not err.is_terminal:
        yield lambda phase, done, total: None
        return
    with Progress(TextColumn("{task.description}"), BarColumn(bar_width=20), console=err, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def show(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = progress.add_task(phase)
            progress.update(tasks[phase], completed=done, total=total)

        yield show


def show_state(run: Path, state: RunState) -> None:
    """Print how far a run is."""
    out.print(
        f"{run}: {len(state.done)} of {state.planned} stimuli done, {len(state.pending)} pending,"
        f" {len(state.rejected)} rejected, {len(state.failed)} failed"
    )
    out.print(f"being written by {state.writer}" if state.writer else "no process is writing it")
    for title, ids in (("pending", state.pending), ("rejected", state.rejected), ("failed", state.failed)):
        if ids:
            out.print(f"{title}  {_some(ids)}")


def show_unfinished(run: Path, state: RunState) -> None:
    """Say how many cells of a run cannot be shown to anybody."""
    counts = {"pending": len(state.pending), "failed": len(state.failed)}
    left_out = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    if left_out:
        err.print(f"note: of the {state.planned} cells of {run}, {left_out} are left out")


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:10]) + (f" and {len(ids) - 10} more" if len(ids) > 10 else "")


def show_verification(run: Path, result: Verification) -> None:
    """Print what `verify` found."""
    for finding in result.findings:
        out.print(f"{finding.name:<16}  {finding.path}: {finding.detail}")
    verdict = f"{result.errors} findings" if result.errors else "everything is as it was committed"
    out.print(f"{run}: {result.complete} of {result.planned} stimuli checked, {verdict}")


def show_audit(run: Path, found: Audit, folder: Path | None) -> None:
    """Print the findings of an audit by severity, and which factors explain much."""
    from stimkit.auditing.findings import FINDINGS, SEVERITIES

    for (severity, name), group in groupby(found.findings, lambda one: (one.severity, one.name)):
        findings = list(group)
        out.print(f"{severity:<8} {name} ({len(findings)}): {FINDINGS[name]}")
        for finding in findings[:SHOWN]:
            out.print(f"           {' '.join(filter(None, (finding.stimulus_id, finding.path, finding.detail)))}")
        if len(findings) > SHOWN:
            out.print(f"           and {len(findings) - SHOWN} more")
    show_effects(found.effects)
    counts = Counter(finding.severity for finding in found.findings)
    verdict = ", ".join(
        f"{counts[severity]} {severity}{'s' if counts[severity] > 1 else ''}"
        for severity in SEVERITIES
        if counts[severity]
    )
    verdict = f"{found.complete} of {found.planned} stimuli audited: {verdict or 'nothing to object to'}"
    out.print(f"{run}: {verdict}")
    if folder is not None:
        out.print(f"tables   {folder}")


def show_effects(effects: pd.DataFrame) -> None:
    """Print the factors that explain much of a variable's variance."""
    if effects.empty:
        return
    large = effects[(effects["model"] == "alone") & (effects["omega_squared"] > LARGE_EFFECT)]
    table = Table(box=None, pad_edge=False, header_style="bold", title="variance explained by a factor alone (ω²)")
    for header in ("variable", "factor", "ω²", "p"):
        table.add_column(header)
    for row in large.sort_values("omega_squared", ascending=False).to_dict("records"):
        table.add_row(row["variable"], row["factor"], f"{row['omega_squared']:.2f}", f"{row['p']:.2g}")
    out.print(table)


def show_comparison(one: Comparison, done: int, total: int) -> None:
    """Print how equal one stimulus is that was made again."""
    details = [f"loss {_number(one.loss_again)} (recorded {_number(one.loss_recorded)})"]
    if one.max_difference is None:
        details.append("the file in the run is not that of record: see `stimkit verify`")
    if one.max_difference:
        details.append(f"{100 * (one.changed_fraction or 0):.1f} % of values differ, by at most {one.max_difference}")
        details.append(f"SSIM {one.ssim:.4f}" if one.ssim is not None else "")
    if one.tier not in ("identical_file", "identical_pixels") and one.environment_differs:
        details.append("environment: " + "; ".join(one.environment_differs))
    out.print(f"[{done}/{total}] {one.filename}  {one.tier}  {', '.join(filter(None, details))}")


def show_trials(lists: TrialLists, folder: Path) -> None:
    """Say what trial lists hold, and how balanced they are."""
    from stimkit.experiment.trials.balance import count_balance, note_imbalance

    kinds = lists.table.groupby("participant")["kind"].value_counts().groupby("kind").max()
    out.print(
        f"{lists.design.participants} participants, {len(lists.table):,} trials;"
        f" of one participant {', '.join(f'{count} {kind}' for kind, count in kinds.items())}"
    )
    for row in count_balance(lists).to_dict("records"):
        of = " ".join(filter(None, (row["measure"], row["of"], row["level"])))
        lowest, highest = row["lowest"], row["highest"]
        each = str(lowest) if lowest == highest else f"{lowest} to {highest}"
        out.print(f"  {of:<40} {row['total']:>7,} in all, {each} each")
    for note in note_imbalance(lists):
        err.print(f"note: {note}")
    out.print(f"{folder}: trials.csv, participants, balance.csv")


def show_tiers(folder: Path, tiers: Sequence[str]) -> None:
    """Print how many stimuli reached which tier."""
    counts = ", ".join(f"{tier} {tiers.count(tier)}" for tier in dict.fromkeys(tiers))
    out.print(f"{len(tiers)} stimuli made again in {folder / 'stimuli'}: {counts}; see {folder / 'comparison.csv'}")


def show_plan(summary: Mapping[str, Any]) -> None:
    """Print a plan's summary as `stimkit.planning.summary.summarize` gives it."""
    controls = ", ".join(f"{count} {role}" for role, count in summary["controls"].items())
    out.print(f"{summary['name']}: {summary['cells']:,} cells{f', of which controls: {controls}' if controls else ''}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("factor", "levels", ""):
        table.add_column(header, overflow="fold")
    for factor, levels in summary["factors"].items():
        shown = ", ".join(levels) if len(levels) <= 12 else f"{', '.join(levels[:10])}, … {levels[-1]}"
        table.add_row(visible(factor), str(len(levels)), visible(shown) or "-")
    out.print(table)
    out.print(f"size     {', '.join(f'{height} × {width} px' for height, width in summary['sizes'])}")
    for source in summary["weights"]:
        what = source["problem"] or f"{source['description'] or 'a file'} (sha256 {source['digest'][:12]}…)"
        out.print(f"weights  {source['spec']}: {what}")
    _show_ratios(summary["ratios"])
    _show_estimate(summary["estimate"])


def _show_ratios(rows: list[dict[str, Any]]) -> None:
    for row in rows[:12]:
        out.print(
            f"ratio    {row['paper']:.3g} under the paper's formulas = {row['mean']:.3g} under mean losses,"
            f" with equal layer weights, at {row['size'][0]} × {row['size'][1]} px"
        )


def _show_estimate(estimate: Mapping[str, Any]) -> None:
    basis = "from an earlier run here" if estimate["rate_measured"] else "a guess until something has run here"
    out.print(
        f"at most  {estimate['evaluations']:,} evaluations, about {duration(estimate['seconds'])}"
        f" on {estimate['device']} ({basis});"
        f" memory {size(estimate['memory_bytes'])} and up, disk {size(estimate['disk_bytes'])}"
    )
