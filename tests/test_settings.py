"""The one table of settings drives command line, environment and docs."""

from pathlib import Path

import pytest

from unmask.cli import main
from unmask.errors import SettingError
from unmask.settings import SETTINGS, resolve, table

DOCS = Path(__file__).parent.parent / "docs"


def test_command_line_over_environment_over_default(monkeypatch):
    assert resolve("detect").every == 15
    monkeypatch.setenv("UNMASK_EVERY", "5")
    assert resolve("detect").every == 5
    assert resolve("detect", {"every": "3"}).every == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [("every", "0"), ("every", "many"), ("threshold", "1.5"), ("threshold", "nan"),
     ("aggregate", "max"), ("colour", "red"), ("every", 3.9), ("every", True),
     ("every", float("inf")), ("model", ["a.xml"])],
)  # fmt: skip
def test_wrong_values_are_refused_with_words(name, value):
    with pytest.raises(SettingError, match=name):
        resolve("detect", {name: value})


def test_a_wrong_variable_is_named_and_an_empty_one_is_unset(monkeypatch):
    monkeypatch.setenv("UNMASK_EVERY", "")
    assert resolve("detect").every == 15
    monkeypatch.setenv("UNMASK_EVERY", "often")
    with pytest.raises(SettingError, match="UNMASK_EVERY is set so"):
        resolve("detect")
    assert resolve("detect", {"every": 3}).every == 3


def test_wrong_setting_on_the_command_line_is_wrong_usage(capsys):
    assert main(["detect", ".", "--every", "0"]) == 2
    assert "--every must be at least 1" in capsys.readouterr().err


def test_a_configuration_file_says_how_videos_are_judged(tmp_path):
    file = tmp_path / "unmask.toml"
    file.write_text('threshold = 0.05\ncalibration = "mine.json"\nport = 8080\n')
    for command in ("serve", "worker"):  # the same file serves both
        found = resolve(command, {"config": str(file), "calibration": "other.json"})
        assert (found.threshold, found.calibration) == (0.05, "other.json")


@pytest.mark.parametrize("name", ["retnetion", "provenance", "epochs"])
def test_a_name_that_no_web_command_has_is_refused(tmp_path, name):
    file = tmp_path / "unmask.toml"
    file.write_text(f"{name} = 3\n")
    with pytest.raises(SettingError, match=f"'{name}', which is no setting of serve or worker"):
        resolve("serve", {"config": str(file)})


def test_names_are_unique_and_defaults_pass_their_own_check():
    assert len({s.name for s in SETTINGS}) == len(SETTINGS)
    for setting in SETTINGS:
        assert setting.check(setting.default) == setting.default


def test_documentation_lists_every_setting_as_it_is():
    text = (DOCS / "settings.md").read_text()
    assert table() in text, "run: python -m unmask.settings > docs/settings.md"
