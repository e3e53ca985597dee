"""The benchmark of long acting reports every minute, and pushes all of a repeated voice."""

import itertools

import numpy as np
import pytest
from small_acting import make

from benchmarks.hour import measure, seconds_of, summary


def test_the_voice_goes_on_where_the_recording_begins_again():
    speech = np.arange(24_000)
    heard = np.concatenate(list(itertools.islice(seconds_of(speech), 3)))
    np.testing.assert_array_equal(heard, np.concatenate([speech, speech]))


def test_the_last_minute_is_compared_with_the_first():
    found = {
        "processor_seconds": [2.0, 1.0, 3.0, 3.0],
        "seconds": [6.0, 6.0, 6.0, 6.0],
        "megabytes": [100.0, 100.0, 100.0, 110.0],
    }
    assert summary(found) == {
        "minutes": 4,
        "time_of_last_to_first": 1.5,
        "time_of_second_half_to_first": 2.0,
        "memory_of_last_to_first": 1.1,
        "real_time_factor": 0.1,
    }


@pytest.mark.slow
def test_an_hour_is_streamed_in_the_memory_of_its_first_minute():
    speech = 0.1 * np.random.default_rng(0).normal(size=24_000)
    found = measure(make()[0], speech.astype(np.float32), 60)
    assert summary(found)["memory_of_last_to_first"] < 1.05
