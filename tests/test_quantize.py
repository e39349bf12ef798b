"""A model of eight bits judges like the one that it was made of."""

import json
import shutil

import cv2
import numpy as np

from unmask.card import SHIPPED
from unmask.classifier import Classifier
from unmask.data.index import Crop, write_index
from unmask.training import quantize as module
from unmask.training.quantize import quantize


def test_eight_bits_judge_alike(tmp_path, samples, monkeypatch):
    monkeypatch.setattr(module, "_BATCH", 8)
    for name in ("_FOR_RANGES", "_FOR_FIT", "_FOR_CHECK"):
        monkeypatch.setattr(module, name, 2)
    model = tmp_path / "mine.v2.xml"
    for suffix in (".xml", ".bin", ".json"):
        shutil.copy(SHIPPED.with_suffix(suffix), model.with_suffix(suffix))
    crops = []
    for portrait in sorted((samples / "people").glob("*.jpg")):
        image = cv2.resize(cv2.imread(str(portrait)), (256, 256), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(tmp_path / f"{portrait.stem}.png"), image)
        crops.append(Crop(f"{portrait.stem}.png", "real", portrait.stem, portrait.stem))
    crops.append(Crop("not_there.png", "real", "x", "x", split="test"))  # is not looked at
    write_index(tmp_path, crops)

    summary = quantize(model, tmp_path)
    assert "crops a second" in summary
    small = tmp_path / "mine.v2_int8.xml"
    eight = Classifier(small)
    assert "measured" not in json.loads(small.with_suffix(".json").read_text())
    size = [path.with_suffix(".bin").stat().st_size for path in (small, model)]
    assert size[0] < 0.6 * size[1]
    images = np.stack([cv2.imread(str(tmp_path / crop.path))[:, :, ::-1] for crop in crops[:-1]])
    logits, expected = eight.logits(images), Classifier(model).logits(images)
    assert np.abs(logits - expected).mean() < 0.6
    evidence = eight.evidence(images[:2])
    assert evidence.shape == (2, 8, 8)
    np.testing.assert_allclose(evidence.mean((1, 2)), logits[:2], atol=0.05)
