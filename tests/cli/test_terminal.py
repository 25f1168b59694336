"""What reaches the terminal, whatever stands in files; and how a command ends where the system fails it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w

from stimkit.cli.terminal import visible
from stimkit.runfolder.run import Run
from tests.conftest import ROOT, document, lacking

Command = Callable[..., tuple[int, str, str]]
HOSTILE = "\x1b]0;title\x07\x1b[2Jx\u202egnp.exe\u200b\x9b31m\r"


def test_what_would_not_be_seen_is_written_out() -> None:
    assert visible("plain, größer, 日本, \t and\nlines – ω ≤ 1") == "plain, größer, 日本, \t and\nlines – ω ≤ 1"
    shown = visible(HOSTILE)
    assert shown == r"\x1b]0;title\x07\x1b[2Jx\u202egnp.exe\u200b\x9b31m\r"
    assert visible("\ud800\U000e0041") == r"\ud800\U000e0041"


def test_commands_print_nothing_but_by_way_of_the_terminal() -> None:
    for path in (ROOT / "stimkit/cli").glob("*.py"):
        if path.name != "terminal.py":
            assert not re.search(
                r"typer\.echo|click\.echo|\bprint\(|Console\(", path.read_text().replace(".print(", "")
            ), path


@pytest.mark.parametrize("text", [f'name = "{HOSTILE.encode("unicode_escape").decode()}"', f'"a{HOSTILE[:4]}" = 1'])
def test_protocols_and_designs_of_others(text: str, tmp_path: Path, command: Command, small_run: Run) -> None:
    text = text.replace(r"\x1b", r"\u001b").replace(r"\x07", r"\u0007").replace(r"\x9b", r"\u009b")
    for arguments in (["plan"], ["trials", small_run.path, "--design"]):
        (tmp_path / "p.toml").write_text(text)
        code, out, err = command(*arguments, tmp_path / "p.toml")
        assert code == 2 and err and not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e]", out + err)


def test_run_folders_of_others(small_run: Run, tmp_path: Path, command: Command) -> None:
    run = tmp_path / "run"
    run.mkdir()
    lock = json.loads((small_run.path / "protocol.lock.json").read_bytes())
    lock["protocol"]["images"]["content"]["cat"] = f"{HOSTILE}.png"
    (run / "protocol.lock.json").write_text(json.dumps(lock))
    (run / "environment.json").write_text("{}")
    (run / f"{HOSTILE}.txt").touch()
    (run / ".lock-holder.json").write_text(json.dumps({"host": HOSTILE, "pid": 1}))
    for arguments in (["verify", run], ["status", run], ["regenerate", run, "--out", tmp_path / "again"]):
        _, out, err = command(*arguments)
        assert (out or err) and not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e]", out + err)


# --- how a command ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["schema"], ["--version"], ["--help"]])
def test_output_on_a_full_disk(arguments: list[str]) -> None:
    if not Path("/dev/full").exists():
        lacking("/dev/full")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "stimkit", *arguments], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 6 and b"cannot be written: No space left" in done.stderr
    assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr


STOP_WHILE_LOADING = """
import signal, sys, _thread
signal.signal(signal.SIGINT, signal.default_int_handler)  # which what runs in the background has not

class Stop:
    def find_spec(self, name, path, target=None):
        if name == "typer":
            _thread.interrupt_main()

sys.meta_path.insert(0, Stop())
from stimkit.__main__ import main
sys.argv = ["stimkit", "schema"]
main()
"""


def test_who_stops_a_command_while_it_is_loaded_gets_a_line() -> None:
    done = subprocess.run([sys.executable, "-c", STOP_WHILE_LOADING], capture_output=True, check=False)
    assert done.returncode == 130 and b"stopped on request" in done.stderr and b"Traceback" not in done.stderr


@pytest.mark.slow
def test_a_machine_without_a_home(tmp_path: Path) -> None:
    """As containers run with a number for a user: what needs a folder says which variable names it."""
    program = "import os, pwd, sys\nos.getuid = lambda: 2**31 - 7\nsys.argv = ['stimkit', *sys.argv[1:]]\n"
    program += "from stimkit.__main__ import main\nmain()"

    def call(*arguments: object, **variables: str) -> tuple[int, str]:
        command = [sys.executable, "-c", program, *map(str, arguments)]
        environment = {"PATH": os.environ["PATH"], **variables}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        return done.returncode, done.stdout + done.stderr

    path = tmp_path / "p.toml"
    path.write_text(tomli_w.dumps(document()))
    code, text = call("plan", path)
    assert code == 0 and "scikit-image needs a home folder, or XDG_CACHE_HOME" in text
    code, text = call("weights", "fetch", "imagenet")
    assert code == 6 and "say in STIMKIT_CACHE where downloads are kept" in text
    assert call("weights", "list")[0] == 0
    code, text = call("plan", path, XDG_CACHE_HOME=str(tmp_path))
    assert code == 0 and "needs a home folder" not in text


def test_names_with_nul(tmp_path: Path, command: Command) -> None:
    images, model = {"content": {"cat": "a\0b.png"}}, {"weights": "x\0y.pth"}
    (tmp_path / "p.toml").write_text(tomli_w.dumps(document(images=images, model=model)))
    code, out, err = command("plan", tmp_path / "p.toml")
    assert code == 0 and r'image "a\x00b.png" in "' in err and "has a NUL in its name" in err and r"x\x00y.pth" in out


@pytest.mark.slow
def test_no_room_for_temporary_files(small_run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    program = f"import tempfile; tempfile.tempdir = {str(folder)!r}\n"
    program += f"import sys; sys.argv = ['stimkit', 'verify', {str(small_run.path)!r}]\n"
    program += "from stimkit.__main__ import main\nmain()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, env={**os.environ})
    assert done.returncode == 6 and b"in TMPDIR" in done.stderr
