"""Of faces that are seen together, the one whose mouth moves with the sound is taken."""

import numpy as np
import pytest
from preparation.spoken import mouths, openness, voice

from xactor_jax.preparation.settings import Speaker
from xactor_jax.preparation.speaker import Mouth, refusals

MOST = 15


def seen(opening: np.ndarray, start: int = 0, end: int | None = None, seed: int = 0) -> Mouth:
    """A mouth that is open so far, seen in some of the frames only."""
    return Mouth(start, mouths(opening, seed)[start:end])


def judged(faces: list[Mouth], sound: np.ndarray) -> list[str]:
    return [reason.partition(" (")[0] for reason in refusals(faces, sound, Speaker(), MOST)]


def test_of_two_faces_the_one_that_is_heard_is_taken():
    openings = [openness(100, seed) for seed in (1, 2)]
    # Whatever the sound's own delay is.
    sound = np.roll(voice(openings[1]), 3 * 640)
    reasons = judged([seen(opening) for opening in openings], sound)
    assert reasons == ["another of 2 faces speaks", ""]


@pytest.mark.parametrize("speaks", ["the one that stays", "the one that is lost"])
def test_a_listener_may_be_lost_and_found_again(speaks):
    stays, lost = openness(300, 1), openness(300, 2)
    faces = [seen(stays), seen(lost, 0, 120), seen(lost, 140)]
    if speaks == "the one that stays":
        assert judged(faces, voice(stays)) == ["", *["another of 2 faces speaks"] * 2]
    else:
        assert judged(faces, voice(lost)) == ["another of 3 faces speaks", "", ""]


def test_who_passes_by_for_a_second_changes_nothing():
    opening = openness(300, 1)
    passing = seen(openness(300, 2), 100, 130)
    stays, passes = judged([seen(opening), passing], voice(opening))
    assert stays == "" and passes == "2 faces, and it is not clear who speaks"


def test_beside_one_seen_too_shortly_to_be_judged_a_face_must_agree_with_the_sound():
    opening, other = openness(150, 1), openness(150, 2)
    short = seen(other, 40, 110)  # nearly half of the time
    assert judged([seen(opening), short], voice(opening))[0] == ""
    still = judged([seen(np.zeros(150)), short], voice(other))
    assert still == ["2 faces, and it is not clear who speaks"] * 2


def test_faces_that_do_the_same_are_not_told_apart():
    opening, unclear = openness(100), ["2 faces, and it is not clear who speaks"] * 2
    assert judged([seen(opening, seed=seed) for seed in (1, 2)], voice(opening)) == unclear
    silent = [seen(np.zeros(100), seed=seed) for seed in (1, 2)]
    assert judged(silent, voice(openness(100, 3))) == unclear
    assert judged([seen(openness(30)), seen(openness(30))], voice(openness(30))) == unclear
    assert judged([seen(opening)], voice(opening)) == [""]
