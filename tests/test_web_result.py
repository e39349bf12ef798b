"""The verdict in words, and where people are."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from test_html_report import CARD, MEASURED, exhibit, report, track

from unmask.explain import Exhibits
from unmask.report import Report
from unmask.settings import resolve
from unmask.web.result import headline, where, write

RULES = resolve("detect")

FAKE, UNSURE, REAL = [0.9] * 5, [0.5] * 5, [0.1] * 5


def people(verdict, *each, places=None, seconds=None, **changes) -> Report:
    """A report on people side by side from left to right, in a picture 360 pixels wide."""
    tracks = []
    for number, probabilities in enumerate(each):
        one = track(number + 1, probabilities)
        x = places[number] if places else 360 * (number + 0.5) / len(each)
        start = seconds[number] if seconds else 0.0
        frames = [
            dataclasses.replace(frame, box=(x - 9, 5, x + 9, 25), second=start + frame.second)
            for frame in one.frames
        ]
        times = {"first_second": frames[0].second, "last_second": frames[-1].second}
        tracks.append(dataclasses.replace(one, frames=frames, **times))
    return report(*tracks, verdict=verdict, **changes)


@pytest.mark.parametrize(
    ("verdict", "each", "words"),
    [
        ("fake", [FAKE], "Likely fake: the face looks manipulated."),
        ("real", [REAL], "No sign of manipulation found: the face looks real."),
        ("uncertain", [UNSURE], "Too close to call: the face could be real or fake."),
        ("no_face", [], "No face to judge: none was found."),
        ("unreadable", [], "The file could not be read."),
        (
            "fake", [FAKE, REAL, REAL],
            "Likely fake: 2 of 3 people look real; the person at the left does not.",
        ),
        (
            "fake", [REAL, FAKE],
            "Likely fake: 1 of 2 people looks real; the person at the right does not.",
        ),
        (
            "fake", [FAKE, REAL, FAKE],
            "Likely fake: 1 of 3 people looks real; the people at the left and at the right do "
            "not.",
        ),
        ("fake", [FAKE] * 4 + [REAL], "Likely fake: 1 of 5 people looks real; the other 4 do not."),
        (
            "fake", [FAKE, UNSURE, REAL],
            "Likely fake: the person at the left looks manipulated; the person in the middle could "
            "be real or fake; the person at the right looks real.",
        ),
        (
            "uncertain", [REAL, UNSURE, REAL, REAL, REAL],
            "Too close to call: the person second from the left could be real or fake; 4 of 5 "
            "people look real.",
        ),
        ("fake", [FAKE] * 2, "Likely fake: both people look manipulated."),
        ("real", [REAL] * 3, "No sign of manipulation found: all 3 people look real."),
        # Who is seen too briefly decides nothing.
        ("real", [FAKE[:2], REAL], "No sign of manipulation found: the face looks real."),
        ("fake", [FAKE[:2]], "Likely fake: the face looks manipulated."),
        # The setting 'mean'.
        (
            "real", [FAKE, REAL, REAL],
            "No sign of manipulation found when all faces are taken together: 2 of 3 people look "
            "real; the person at the left does not.",
        ),
    ],
)  # fmt: skip
def test_the_verdict_in_words(verdict, each, words):
    assert headline(people(verdict, *each), RULES) == words


def test_with_the_mean_over_all_faces_also_who_was_seen_briefly_counts():
    both = people("fake", REAL, FAKE)
    both.tracks[1].frames[1:] = []
    alone = "Likely fake when all faces are taken together: the face looks real."
    assert headline(both, RULES) == alone
    assert headline(both, resolve("detect", {"aggregate": "mean"})) == (
        "Likely fake: 1 of 2 people looks real; the person at the right does not."
    )


def test_people_are_never_called_the_same():
    assert list(where(people("real", *[REAL] * 4), RULES).values()) == [
        "at the far left", "second from the left", "third from the left", "at the far right",
    ]  # fmt: skip
    one_after_another = people("real", REAL, REAL, places=[40, 60], seconds=[0, 65])
    assert where(one_after_another, RULES) == {
        1: "at the left from 0:00 to 0:02", 2: "at the left from 1:05 to 1:07",
    }  # fmt: skip
    one_above_the_other = people("real", REAL, REAL, places=[180, 181])
    assert where(one_above_the_other, RULES) == {
        1: "in the middle from 0:00 to 0:02 (person 1)",
        2: "in the middle from 0:00 to 0:02 (person 2)",
    }
    crowd = where(people("real", *[REAL] * 30), RULES)
    assert len(set(crowd.values())) == 30
    words = headline(people("fake", *[REAL] * 28, FAKE, UNSURE), RULES)
    assert words.startswith("Likely fake: person 29 looks manipulated; person 30 could be real")
    words = headline(people("fake", *[REAL] * 28, FAKE, FAKE), RULES)
    assert words == "Likely fake: 28 of 30 people look real; people 29 and 30 do not."
    assert where(people("fake", FAKE), RULES) == {1: "in the middle"}


def test_who_lacks_colour_does_not_hide_who_is_called_fake():
    both = people("fake", [0.95] * 5, FAKE)
    grey = dataclasses.replace(both.tracks[0], verdict="uncertain")
    assert headline(dataclasses.replace(both, tracks=[grey, both.tracks[1]]), RULES) == (
        "Likely fake: the person at the right looks manipulated; the person at the left could be "
        "real or fake."
    )


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("clip.mp4", "clip.mp4"),
        ('=HYPERLINK("http://x")', '\'=HYPERLINK("http://x")'),
        ("-1+2", "'-1+2"),
        ("@SUM(A1)", "'@SUM(A1)"),
        (" +1", "' +1"),
        ("\N{FULLWIDTH EQUALS SIGN}1", "'\N{FULLWIDTH EQUALS SIGN}1"),
        ("\t=1", "\\t=1"),
        ('a",=1\n=2', 'a",=1\\n=2'),
    ],
)
def test_no_name_is_a_formula_in_the_table(tmp_path, name, cell):
    write_all(tmp_path, people("fake", FAKE, path=name))
    with (tmp_path / "frames.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"] for row in rows} == {cell}
    assert [row["frame"] for row in rows] == [str(f.index) for f in track(1, FAKE).frames]


def write_all(folder, found, card=CARD, **settings):
    exhibits = Exhibits()
    for one in found.tracks:
        exhibits.offer(one.id, exhibit(one.first_second, 1.0, np.zeros((256, 256, 3), np.uint8)))
    file = folder / "source.mp4"
    file.write_bytes(b"a video")
    settings = resolve("detect", {"threads": 1} | settings)
    write(found, exhibits, card, settings, file, folder)
    return json.loads((folder / "result.json").read_text())


def test_what_the_page_is_told(tmp_path):
    card = dataclasses.replace(CARD, measured=MEASURED)
    found = people("fake", REAL, FAKE, FAKE[:1], path="clip.mp4")
    result = write_all(tmp_path, found, card, model="/srv/secret/m.xml", every=5)
    assert [person["id"] for person in result["people"]] == [2, 1, 3]
    assert result["people"][0]["pictures"] == [
        {
            "index": 0, "second": 0.0, "probability_fake": 0.9, "crop": "person-2-0.jpg",
            "heat": "person-2-0-heat.jpg",
        }
    ]  # fmt: skip
    assert "too briefly" in result["people"][2]["warnings"][0]
    assert "Fakes that it finds: 28 in 100 (95 % interval: 10 to 50)" in " ".join(
        result["measured"]
    )
    assert "other settings" not in " ".join(result["measured"])
    page = (tmp_path / "report.html").read_text()
    assert "unmask detect --every=5 --model=m.xml --html report.html -- clip.mp4" in page
    assert "/srv" not in page
    other = write_all(tmp_path, dataclasses.replace(found, threshold=0.7), card)
    assert "do not hold with the settings that are in use (--threshold)" in other["measured"][-1]


def test_nothing_to_judge_is_told_without_options_that_nobody_has(tmp_path):
    result = write_all(tmp_path, people("no_face", path="clip.mp4"))
    assert result["people"] == result["measured"] == []
    assert "--" not in result["advice"]


def test_a_report_comes_back_from_its_json():
    found = people("fake", REAL, FAKE)
    assert Report.from_dict(found.to_dict()).to_dict() == found.to_dict()
    assert Report.from_dict(people("unreadable", video=None).to_dict()).video is None
