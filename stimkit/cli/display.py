"""What the command line shows: progress of a run, summaries, tables."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from stimkit.cli.progress import duration, short_number
from stimkit.cli.terminal import err, out, visible

if TYPE_CHECKING:
    import pandas as pd

    from stimkit.auditing.audit import Audit
    from stimkit.auditing.regeneration import Comparison
    from stimkit.auditing.verification import Verification
    from stimkit.documents.curation import Agreement
    from stimkit.experiment.trials.lists import TrialLists
    from stimkit.runfolder.run import RunState
    from stimkit.running.events import RunSummary
    from stimkit.running.preview import Preview
    from stimkit.scaling.scales import Scales

SHOWN = 5  # findings of a kind
LARGE_EFFECT = 0.14  # omega squared (Cohen 1988)


def size(count: float) -> str:
    """Write a number of bytes in words."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.{1 if unit == 'GB' else 0}f} {unit}"
    return f"{count / 1e3:.0f} kB"


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


def show_preview(found: Preview, path: Path) -> None:
    """Print what ratios keep of content and of style, and which of them keep enough of both."""
    for look in found.looks:
        name = {0.0: "all style", math.inf: "all content"}.get(look.ratio, f"{look.ratio:.2g}")
        out.print(f"ratio {name:<12} content {look.content_kept:4.0%}  style {look.style_kept:4.0%}")
    out.print(f"between style and content: ratios from about {found.lowest:.1g} to {found.highest:.1g}")
    out.print(
        f"{path}: a row for each pair of images; at 80 px and few evaluations, so larger stimuli differ in detail"
    )


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


def show_agreement(found: Agreement) -> None:
    """Print how far two curators agree."""
    first, second = found.curators
    total = sum(found.counts.values())
    kappa = "" if found.kappa is None else f"; Cohen's kappa {found.kappa:.2f}"
    out.print(f"{first} and {second}: {total} stimuli, the same of {found.agreed:.0%}{kappa}")
    if found.only_one:
        out.print(f"{found.only_one} were decided about by one of them only")
    for one, other in found.differing:
        notes = " / ".join(verdict.note for verdict in (one, other) if verdict.note)
        out.print(f"{one.stimulus_id}  {one.verdict} / {other.verdict}{f'  {notes}' if notes else ''}")


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
    if (cues := found.cues) and cues.shape_bias is not None:
        decided = f"{cues.content} taken for their content, {cues.style} for their style, {cues.others} for neither"
        out.print(f"shape bias {cues.shape_bias:.2f}: {decided}")
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
    for header in ("variable", "factor", "ω²", "p by permutation", "ω² by chance in 5 %"):
        table.add_column(header)
    for row in large.sort_values("omega_squared", ascending=False).to_dict("records"):
        numbers = (row["omega_squared"], row["p_permutation"], row["omega_squared_chance"])
        table.add_row(row["variable"], row["factor"], *(f"{value:.2g}" for value in numbers))
    out.print(table)


def show_comparison(one: Comparison, done: int, total: int) -> None:
    """Print how equal one stimulus is that was made again."""
    details = [f"loss {short_number(one.loss_again)} (recorded {short_number(one.loss_recorded)})"]
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


def show_scales(found: Scales) -> None:
    """Print what was fitted to all answers, and for whom nothing could be."""
    values, fits = found.values.to_dict("records"), found.fits.to_dict("records")
    table = Table(box=None, pad_edge=False)
    for name in (found.along, "value", "95 % interval"):
        table.add_column(name)
    for row in (row for row in values if not row["participant"]):  # of all together
        words = f"{row['name']} ({row['dimension']})" if found.method == "mds" else str(row["name"])
        table.add_row(words, f"{row['value']:.4g}", f"{row['low']:.4g} to {row['high']:.4g}")
    if table.rows:
        out.print(table)
    for row in fits:
        who = row["participant"] or "all"
        if row["problem"]:
            out.print(f"{who}: {row['problem']}")
        else:
            fit = "" if math.isnan(row["p"]) else f", p {row['p']:.2g}"
            out.print(f"{who}: {row['trials']:.0f} trials, {100 * row['explained']:.0f} % accounted for{fit}")


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
    if left_out := [f"{summary[key]:,} {key.replace('_', ' ')}" for key in ("excluded", "not_sampled") if summary[key]]:
        out.print(f"without  combinations of levels: {' and '.join(left_out)}")
    degrees = ", ".join(f"{height:.3g}° × {width:.3g}°" for height, width in summary["degrees"])
    sizes = ", ".join(f"{height} × {width} px" for height, width in summary["sizes"])
    out.print(f"size     {sizes}{f' ({degrees} of visual angle)' if degrees else ''}")
    for part in (part for part in summary["coarse_sizes"] if part["sizes"]):
        smaller = ", ".join(f"{height} × {width}" for height, width in part["sizes"])
        out.print(f"         {part['cells']:,} cells coarse to fine, at {smaller} px before")
    if summary["output"]:
        out.print(f"output   {_settings(summary['output'])}")
    if summary["accept"]:
        out.print(f"accept   {_settings(summary['accept'])}")
    for source in summary["weights"]:
        what = source["problem"] or f"{source['description'] or 'a file'} (sha256 {source['digest'][:12]}…)"
        out.print(f"weights  {source['spec']}: {what}")
    _show_ratios(summary["ratios"])
    if summary["titration"]:
        out.print(f"ratio    is found by titration: {_settings(summary['titration'])}")
    if summary["same_textures"]:
        out.print(
            f"note     {summary['same_textures']:,} cells are style only, and those of different contents show the same"
            " texture from other noise"
        )
    done = summary["cells"] - summary["pending"]
    _show_estimate(summary["estimate"], f", for the {summary['pending']:,} cells that are not done" if done else "")


def _settings(values: Mapping[str, Any]) -> str:
    """Settings and their values, in the words of the protocol."""
    shown = {name: value if isinstance(value, list) else [value] for name, value in values.items()}
    return ", ".join(f"{name} {' | '.join(map(str, levels))}" for name, levels in shown.items())


def _show_ratios(rows: list[dict[str, Any]]) -> None:
    for row in rows[:12]:
        out.print(
            f"ratio    {row['paper']:.3g} under the paper's formulas = {row['mean']:.3g} under mean losses,"
            f" with equal layer weights, at {row['size'][0]} × {row['size'][1]} px"
        )


def _show_estimate(estimate: Mapping[str, Any], what: str) -> None:
    if not estimate["disk_bytes"]:
        out.print("all cells are done")
        return
    basis = "as such cells ran here" if estimate["rate_measured"] else "a guess until such cells have run here"
    out.print(
        f"at most  {estimate['evaluations']:,} evaluations{what}, about {duration(estimate['seconds'])}"
        f" on {estimate['device']} ({basis});"
        f" memory {size(estimate['memory_bytes'])} and up, disk {size(estimate['disk_bytes'])}"
    )
