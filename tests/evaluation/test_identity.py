import numpy as np
import pytest
from evaluation.flat import FlatRenderer, actors

from xactor_jax.data.shards import open_shards, write_shards
from xactor_jax.errors import InputError
from xactor_jax.evaluation import identity

RNG = np.random.default_rng(0)
PEOPLE = np.repeat(np.arange(20), 60)
MOTIONS = PEOPLE // 2  # every motion is shown on two people
TIME = np.tile(np.arange(60) / 60, 20)


def test_a_planted_signal_is_read_and_noise_is_not():
    target = RNG.normal(size=len(PEOPLE))
    noise = RNG.normal(size=(len(PEOPLE), 8))
    planted = noise + np.outer(target, RNG.normal(size=8))
    mixed = planted @ RNG.normal(size=(8, 8))
    # The best linear reading of a signal of variance |w|^2 beside unit noise.
    assert identity.probe(mixed, target, PEOPLE, MOTIONS) > 0.8
    # 1200 rows: chance r has a deviation of .03.
    assert abs(identity.probe(noise, target, PEOPLE, MOTIONS)) < 0.12


def test_folds_share_neither_identity_nor_motion():
    tested = []
    for fit, test in identity.folds(PEOPLE, MOTIONS, seed=0):
        assert not set(PEOPLE[fit]) & set(PEOPLE[test])
        assert not set(MOTIONS[fit]) & set(MOTIONS[test])
        tested += test.tolist()
    assert sorted(tested) == list(range(len(PEOPLE)))


def test_identity_is_found_where_it_is_and_chance_where_it_is_not():
    noise = RNG.normal(size=(len(PEOPLE), 10))
    people = RNG.normal(size=(20, 10))[PEOPLE]
    assert identity.identity_probe(noise + 4 * people, PEOPLE, TIME) > 0.95
    # Chance is .05; over 600 test rows its deviation is .009.
    assert identity.identity_probe(noise, PEOPLE, TIME) < 0.09


def test_actors_are_read_frame_by_frame(tmp_path):
    write_shards(tmp_path, {"test": actors(6)})
    numbers = identity.probes(
        open_shards(tmp_path, "test"), FlatRenderer(), lambda amount: None, seed=0
    )
    assert numbers["jaw"] > 0.99  # brightness is the jaw, up to JPEG
    assert numbers["yaw"] == 0  # nobody turns
    assert numbers["n"] == {"identities": 6, "frames": 6 * 12}
    assert numbers["chance"] == pytest.approx(1 / 6)


def test_too_few_actors_are_refused(tmp_path):
    write_shards(tmp_path, {"test": actors(3)})
    with pytest.raises(InputError, match="3 actors"):
        identity.probes(open_shards(tmp_path, "test"), FlatRenderer(), lambda n: None, seed=0)
