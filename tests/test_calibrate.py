"""Calibration puts 0.5 where so many real videos are called fake, and keeps the order of scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.errors import DatasetError
from unmask.training.calibrate import fit_calibration


@given(st.integers(0, 10_000), st.floats(0.3, 5), st.floats(-4, 4), st.floats(0.01, 0.3))
def test_no_more_false_alarms_than_allowed(seed, spread, shift, allowed):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], 60)
    logits = (rng.normal(size=120) + labels * 2) * spread + shift
    found = fit_calibration(logits, labels, allowed)
    called_fake = logits * found.scale + found.offset > 1e-9
    assert called_fake[labels == 0].mean() <= allowed
    assert found.false_positive_rate <= allowed
    assert called_fake[labels == 1].mean() == pytest.approx(found.true_positive_rate)
    assert found.scale > 0


def test_overconfident_logits_are_tamed():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 500)
    honest = rng.normal(size=1000) + (labels * 2 - 1) * 0.5  # its own logit is twice 0.5 times it
    assert fit_calibration(honest * 10, labels).scale == pytest.approx(0.1, rel=0.15)


def test_too_few_or_upside_down_is_refused():
    with pytest.raises(DatasetError, match="20 of each"):
        fit_calibration(np.arange(30.0), np.arange(30) % 2)
    with pytest.raises(DatasetError, match="higher"):
        fit_calibration(np.arange(60.0), (np.arange(60) < 30).astype(int))
