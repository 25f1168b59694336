"""Pages of the reference that are written from the code: keys, columns, findings, commands, public names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from findings import EXAMPLES
from typer.core import TyperGroup

import stimkit
from stimkit.auditing.findings import FILE_FINDINGS, FINDINGS
from stimkit.cli.main import app as commands
from stimkit.columns import FURTHER, MEASURES, OUTCOMES, SSIM_CONTENT, Column, RecordColumns, describe_field
from stimkit.measures.orientations import ORIENTATION_COLUMNS
from stimkit.measures.phog import PHOG_COLUMNS
from stimkit.measures.similarity import SIMILARITY_COLUMNS
from stimkit.measures.variances import VARIANCE_COLUMNS
from stimkit.protocol.limits import DEFAULT_LIMITS
from stimkit.protocol.protocol import json_schema
from stimkit.protocol.settings import Settings

PAGES_OF_FILES = {
    "CHANGELOG.md": "developers/generated/changelog.md",
    "CONTRIBUTING.md": "developers/generated/contributing.md",
    "benchmarks/RESULTS.md": "developers/generated/results.md",
}
"""Files of the repository that are pages of the site, too."""
MEASURED = {
    "orientation": ORIENTATION_COLUMNS,
    "phog": PHOG_COLUMNS,
    "variances": VARIANCE_COLUMNS,
    "similarity": SIMILARITY_COLUMNS,
}
WRITTEN = "% Written by docs/generate.py from the code; changes here are lost.\n\n"


def write_pages(folder: Path) -> None:
    """Write all generated pages into the folder of the documents, where they differ from what is there."""
    pages = {
        "reference/generated/protocol.md": protocol_page(),
        "reference/generated/columns.md": columns_page(),
        "reference/generated/findings.md": findings_page(),
        "reference/generated/commands.md": commands_page(),
        "reference/generated/python.md": python_page(),
        "gallery/generated/pictures.md": gallery_page(folder / "gallery"),
    }
    pages |= {page: file_page(folder.parent / name) for name, page in PAGES_OF_FILES.items()}
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text("utf-8") != WRITTEN + text:
            path.write_text(WRITTEN + text, "utf-8")


def link_within(text: str, page: str) -> str:
    """A page's text whose links to files of the repository lead to their pages; `page` is its place in the site."""
    up = "../" * page.count("/")
    for file, other in PAGES_OF_FILES.items():
        text = text.replace(f"]({up}../{file}", f"]({up}{other}")
    return text


def file_page(path: Path) -> str:
    """A file of the repository as a page in developers/generated."""
    place = "../../../" + ("benchmarks/" if path.parent.name == "benchmarks" else "")
    text = re.sub(r"\]\((?!https?:|#)", f"]({place}", path.read_text("utf-8"))
    return link_within(text.replace("](../../../docs/", "](../../"), "developers/generated/page")


def table(header: list[str], rows: Iterator[list[str]] | list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def protocol_page() -> str:
    """Every key of a protocol: type, default, limits and what it is for."""
    schema = json_schema()
    parts = ["# Keys of a protocol\n", "`stimkit schema` prints the same as JSON Schema, for completion in editors.\n"]
    parts += ["## Without a table\n", _keys(schema, {}, tables=False)]
    for name, value in schema["properties"].items():
        if (found := _table_of(schema, value)) is None:
            continue
        words = re.sub(r"`\[\w+\]`: |: `\[\w+\]` of a protocol", "", str(found.get("description", ""))).rstrip(".")
        parts += [f"## [{name}]\n", f"{words[:1].upper()}{words[1:]}.\n" if words else ""]
        settings = found["properties"].keys() & Settings.model_fields.keys() if name == "factors" else ()
        parts.append(_keys({**found, "properties": _without(found["properties"], settings)}, schema))
        if settings:
            parts.append(
                "Every key of `[model]`, `[synthesis]`, `[output]` and `ppd` may be a factor as well: a list.\n"
            )
    return "\n".join(parts)


def _without(keys: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if key not in names}


def _table_of(schema: Mapping[str, Any], value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The table that a key of a protocol holds, if it holds one."""
    for one in (value, *value.get("anyOf", ())):
        if "$ref" in one:
            found = schema["$defs"][one["$ref"].rsplit("/", 1)[1]]
            return found if "properties" in found else None
    return None


def _keys(found: Mapping[str, Any], schema: Mapping[str, Any], *, tables: bool = True) -> str:
    rows = []
    for key, value in found["properties"].items():
        if not tables and _table_of(found, value) is not None:
            continue
        default = "required" if key in found.get("required", ()) else f"`{_as_toml(value.get('default'))}`"
        words = next((one["description"] for one in (value, *value.get("anyOf", ())) if "description" in one), "")
        rows.append([f"`{key}`", _kind(value, schema or found), default, words])
    return table(["key", "type", "default", "what it is"], rows)


def _as_toml(value: Any) -> str:
    if value is None or value in ({}, []):
        return "none" if value is None else "{}" if value == {} else "[]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_as_toml, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _kind(value: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """A type in words, with its limits."""
    if "$ref" in value:
        return _kind(schema["$defs"][value["$ref"].rsplit("/", 1)[1]], schema)
    if "const" in value:
        return _as_toml(value["const"])
    if "enum" in value:
        return ", ".join(f"`{_as_toml(one)}`" for one in value["enum"])
    if "anyOf" in value:
        kinds = [_kind(one, schema) for one in value["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    kind = {"string": "text", "integer": "whole number", "boolean": "`true`, `false`", "object": "table"}.get(
        value.get("type", ""), value.get("type", "any")
    )
    if value.get("type") == "array":
        items = value.get("items") or (value.get("prefixItems") or [{}])[0]
        if items.get("type") == "object":
            return "list of tables"
        count = f"{value['minItems']} " if value.get("minItems") == value.get("maxItems") is not None else ""
        return f"list of {count}{_kind(items, schema) if items else 'values'}"
    limits = [
        f"{sign} {value[name]:g}"
        for name, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if name in value and abs(value[name]) < 2**62
    ]
    return f"{kind} {', '.join(limits)}".strip()


def columns_page() -> str:
    """Every column of a manifest, with its unit."""
    records = [describe_field(name, field) for name, field in RecordColumns.model_fields.items()]
    settings = [describe_field(name, field) for name, field in Settings.model_fields.items()]
    audit = [*MEASURES, SSIM_CONTENT, *(one for one in OUTCOMES if one.name.startswith("log_")), *FURTHER]
    parts = [
        "# Columns\n",
        "In `manifest.csv` and, with units and meanings as attributes, in `manifest.nc`. Factors, attributes of "
        "images and marks of the design have columns of their own names.\n",
        "## Of every stimulus\n",
        _columns(records),
        "## Settings\n",
        "What a setting may be is on the page of [keys](protocol.md).\n",
        _columns(settings),
        "## Losses\n",
        "`losses.csv` has a row for each `stage` (`initial`, `optimized`, `equalized`, `file`), `term` (`content`, "
        "`style`, `total`) and `layer`, with the layer's `weight` and the unweighted `value`. The manifest has the "
        "file's and "
        "the initial ones as `loss_content_file`, `loss_style_initial` and so on, without a unit: their size "
        "follows from "
        "`loss_convention` ([losses](../../explanation/losses.md)).\n",
        "## Of an audit\n",
        "In `audit/stimuli.csv`.\n",
        _columns(audit),
    ]
    for name, columns in MEASURED.items():
        parts += [f"## Measured by `stimkit measure RUN {name}`\n", _columns(list(columns))]
    return "\n".join(parts)


def _columns(columns: list[Column]) -> str:
    return table(["column", "unit", "what it is"], [[f"`{one.name}`", one.units, one.long_name] for one in columns])


def findings_page() -> str:
    """Every finding of `verify` and `audit`, with an example of each kind."""
    parts = [
        "# Findings: how to read a report\n",
        "A finding is an error, a warning or a notice. Errors fail the audit (exit code 5): what is not as it was "
        "recorded, cells without a usable image, and what is beyond a limit that the protocol names in `[audit]`. "
        "Limits that are not named have defaults that only warn: "
        + ", ".join(f"`{name}` {value:g}" for name, value in DEFAULT_LIMITS.items())
        + ". How each is computed: [audit](../../explanation/audit.md).\n",
    ]
    for title, names in (
        ("Files that are not as they were committed", list(FILE_FINDINGS)),
        ("Stimuli and set", [name for name in FINDINGS if name not in FILE_FINDINGS]),
    ):
        parts.append(f"## {title}\n")
        for name in names:
            good, bad, what = EXAMPLES[name]
            parts.append(f"### {name}\n\n{FINDINGS[name][:1].upper()}{FINDINGS[name][1:]}.\n")
            parts.append(f"- **Good**: {good}\n- **Bad**: {bad}\n- **What to do**: {what}\n")
    return "\n".join(parts)


def gallery_page(folder: Path) -> str:
    """Every picture of the gallery with its protocol, in the order of their names."""
    parts = ["# Gallery\n", (folder / "introduction.txt").read_text("utf-8")]
    for path in sorted(folder.glob("*.toml")):
        comment, text = path.read_text("utf-8").split("\n\n", 1)
        title, *words = [line.removeprefix("#").strip() for line in comment.splitlines()]
        picture = f"![{title}](../{path.stem}.png)" if (folder / f"{path.stem}.png").exists() else ""
        parts.append(f"## {title}\n\n{' '.join(words)}\n\n{picture}\n\n```toml\n{text.strip()}\n```\n")
    return "\n".join(parts)


def commands_page() -> str:
    """Every command with its arguments and options."""
    root = typer.main.get_command(commands)
    assert isinstance(root, TyperGroup)
    parts = ["# Commands\n", "What the exit codes mean is on the page [start](../../start.md#exit-codes).\n"]
    for name, command in sorted(root.commands.items()):
        inner = sorted(command.commands.items()) if isinstance(command, TyperGroup) else [("", command)]
        parts += [_command(f"stimkit {name} {below}".rstrip(), one) for below, one in inner]
    return "\n".join(parts)


def _command(name: str, command: Any) -> str:
    context = command.make_context(name, [], resilient_parsing=True)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    records = [one.get_help_record(context) for one in command.params if not getattr(one, "hidden", False)]
    rows = [[f"`{record[0]}`", record[1]] for record in records if record]
    listing = table(["argument or option", "what it is"], rows) if rows else ""
    return f"## {name}\n\n{inspect.cleandoc(command.help or '')}\n\n```text\n{usage}\n```\n\n{listing}"


def python_page() -> str:
    """Everything that is public in Python, in the order of the package's docstring."""
    groups = [line.strip() for line in (stimkit.__doc__ or "").splitlines() if line.startswith("    ")]
    parts = ["# Python\n", "`import stimkit` gives all of these, and loads what they need when they are first used.\n"]
    for group in groups:
        title, _, names = group.partition("  ")
        known = [name for name in names.replace(",", " ").split() if name in stimkit.__all__]
        parts.append(f"## {title.strip()[:1].upper()}{title.strip()[1:]}\n")
        for name in known:
            directive = "autofunction" if inspect.isfunction(getattr(stimkit, name)) else "autoclass"
            signature = "()" if hasattr(getattr(stimkit, name), "model_fields") else ""  # of one that has all its keys
            parts.append(f"```{{eval-rst}}\n.. {directive}:: stimkit.{name}{signature}\n{_members(name)}```\n")
    return "\n".join(parts)


def _members(name: str) -> str:
    """The public methods and properties of a class that say what they do, for autodoc."""
    value = getattr(stimkit, name)
    if inspect.isfunction(value):
        return ""
    found = [
        one
        for one, member in vars(value).items()
        if not one.startswith(("_", "model_"))
        and (inspect.isfunction(member) or isinstance(member, property | classmethod) or hasattr(member, "func"))
        and inspect.getdoc(getattr(member, "func", member))
    ]
    return f"   :members: {', '.join(found)}\n" if found else ""
