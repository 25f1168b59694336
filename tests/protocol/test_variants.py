"""Variants: other values of some keys of a protocol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w

import stimkit
from stimkit.errors import ProtocolError
from tests.conftest import ROOT, document

VARIANTS = {"strong": {"factors": {"ratio": [1e-7]}, "model": {"pooling": "max"}, "description": "more style"}}


def load(variant: str | None, **changes: object) -> stimkit.Protocol:
    return stimkit.Protocol.from_toml(tomli_w.dumps({**document(), "variants": VARIANTS, **changes}), variant=variant)


def test_a_variant_replaces_keys_and_keeps_the_others() -> None:
    plain, strong = load(None), load("strong")
    assert (plain.name, strong.name) == ("small", "small-strong")
    assert (strong.model.pooling, strong.description) == ("max", "more style")
    assert strong.levels("ratio") == (1e-7,) and strong.levels("style_layers") == plain.levels("style_layers")
    assert plain.model_dump() == stimkit.Protocol.from_dict(document()).model_dump()


def test_ids_are_those_of_a_protocol_that_says_the_same() -> None:
    same = document(factors={"ratio": [1e-7]}, model={"pooling": "max"})
    ids = [list(stimkit.plan(one).by_id) for one in (load("strong"), stimkit.Protocol.from_dict(same))]
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("variants", "variant", "message"),
    [
        (VARIANTS, "strnog", 'there is no variant "strnog" \\(did you mean "strong"'),
        ({"a b": {}}, None, "a variant has a name of letters, digits and hyphens"),
        ({"one": {"name": "x"}}, None, "tables of keys to replace"),
        ({"one": {"factors": {"ratoi": [1]}}}, "one", "ratoi"),
    ],
)
def test_what_variants_cannot_be(variants: object, variant: str | None, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        load(variant, variants=variants)


def test_a_run_of_a_variant_says_so(tmp_path: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    path = tmp_path / "p.toml"
    short = document(synthesis={"max_evaluations": 1})
    path.write_text(tomli_w.dumps({**short, "variants": VARIANTS}))
    code, _, err = command("run", path, "--variant", "strong", "--out", tmp_path / "run", "--device", "cpu")
    assert code == 0, err
    run = stimkit.open_run(tmp_path / "run")
    assert run.plan.protocol.name == "small-strong" and {record.alpha for record in run.records.values()} == {1e-7}
    code, _, err = command("run", path, "--out", tmp_path / "run", "--device", "cpu")
    assert code == 2 and "holds another protocol" in err


@pytest.mark.parametrize("path", sorted((ROOT / "protocols").glob("*.toml")), ids=lambda path: path.stem)
def test_variants_of_the_bundled_protocols_are_protocols(path: Path) -> None:
    names = list(stimkit.Protocol.load(path).variants)
    assert all(stimkit.Protocol.load(path, name).name == f"{path.stem}-{name}" for name in names)


def test_what_a_variant_says_is_told_with_its_line() -> None:
    text = (ROOT / "protocols/quickstart.toml").read_text().replace("ratio = [4e-6]", "ratio = [-4e-6]")
    with pytest.raises(ProtocolError) as caught:
        stimkit.Protocol.from_toml(text, base=ROOT / "protocols", name="q.toml", variant="oxford")
    line = next(number for number, one in enumerate(text.splitlines(), 1) if "-4e-6" in one)
    assert str(caught.value) == f"q.toml:{line}: factors.ratio[0]: must be >= 0 (got -4e-06)"
