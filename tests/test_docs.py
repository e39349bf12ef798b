"""What the documentation tells people to type is what the program understands."""

import re
import shlex
from pathlib import Path

import pytest

from unmask.cli import _parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "models" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            for line in block.splitlines():
                if re.match(r"(\S+/)?unmask ", line):
                    found.append(pytest.param(line.split("#")[0], id=f"{page.name}: {line[:40]}"))
    return found


@pytest.mark.parametrize("line", commands())
def test_every_command_shown_can_be_parsed(line):
    _parser().parse_args(shlex.split(line)[1:])


def test_the_example_of_a_heat_map_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / "explain.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    exec(example, names := {})
    assert names["picture"].shape == (256, 256, 3)
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_link_leads_nowhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
