"""Variants of a protocol: other values for some of its keys, in the same file."""

from __future__ import annotations

from stimkit.documents.messages import BrokenRule, as_table
from stimkit.documents.schemas import Document
from stimkit.errors import did_you_mean
from stimkit.protocol.rules import LEVEL_NAME

_NOT_REPLACED = {"schema", "name", "variants"}


def choose_variant(document: Document, name: str | None) -> tuple[Document, list[BrokenRule]]:
    """The document with the values of its variant called `name`, if one is; and what is wrong with its variants.

    Tables of a variant replace keys of the document's tables, everything else replaces what the document says. Its
    name goes behind the protocol's, since other values make other stimuli.
    """
    variants = as_table(document, "variants")
    problems: list[BrokenRule] = [
        (("variants", one), "a variant has a name of letters, digits and hyphens, and tables of keys to replace")
        for one, values in variants.items()
        if not (LEVEL_NAME.fullmatch(one) and isinstance(values, dict)) or values.keys() & _NOT_REPLACED
    ]
    if name is None:
        return document, problems
    chosen = dict(document)
    if name not in variants:
        problems.append((("variants",), f'there is no variant "{name}"{did_you_mean(name, variants)}'))
    for section in as_table(document, "variants", name):
        value = as_table(document, "variants", name)[section]
        chosen[section] = {**as_table(document, section), **value} if isinstance(value, dict) else value
    chosen["name"] = f"{document.get('name')}-{name}"
    return chosen, problems
