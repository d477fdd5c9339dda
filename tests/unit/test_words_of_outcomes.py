"""One number, one set of words, wherever it is printed."""

import itertools

import pytest

from repro.outcomes.statistics import AFTER_CORRECTION, direction, verdict


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("p", [None, 0.01, 0.5])
def test_the_words_never_say_what_the_interval_does_not(masked, lower, p):
    for low, high in itertools.combinations((-0.12, -0.05, -0.001, 0.0, 0.001, 0.05, 0.12), 2):
        words = verdict((low + high) / 2, low, high, lower, p, masked=masked)
        clear = low > 0 or high < 0
        assert clear != words.startswith("no difference larger")
        assert (words == AFTER_CORRECTION) == (clear and p == 0.5)
        if clear and p != 0.5:
            assert direction(words) == (1 if (high < 0) == lower else -1)
        else:
            assert direction(words) == 0
        assert not {"better", "worse"} & set(words.split()) or not masked


def test_a_harm_that_is_the_treatment_is_called_one():
    assert verdict(0.094, 0.036, 0.151, masked=True) == "hurts more"
    assert verdict(0.094, 0.036, 0.151) == "worse"
