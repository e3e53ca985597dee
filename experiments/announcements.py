"""How well an announced emotion can be heard at all, before any performer is trained to act it.

    python -m experiments.announcements --scripts=400 --held_out=60

Scripts of synthetic actors are spoken, and classifiers guess the emotion of the announcements in
scripts that they were not fitted on: from the mel features of one moment and what is around it, as
a performer hears them, and from those of a whole announcement. They are simple ones, of summaries,
so that a network may hear more; 0.25 is chance.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xactor_jax.command import Parser, run
from xactor_jax.data.actor_motion import Motion, make_motion
from xactor_jax.data.audio_features import MelConfig, audio_features
from xactor_jax.data.shards import EMOTIONS, FRAME_RATE, audio_to_float
from xactor_jax.errors import InputError
from xactor_jax.progress import progress

SECONDS = 20.0
AROUND = (0.4, 1.0, 2.0)  # seconds that are heard of a moment
STRIDE = 5  # frames between those that are guessed
LOUD = 0.6  # of the columns are quieter than those that count as voice
_SEED = 12  # another than that of any training's actors

Heard = tuple[Motion, Float[np.ndarray, "t hops bands"]]
Rows = tuple[Float[np.ndarray, "n f"], np.ndarray]


def speak(numbers: range) -> list[Heard]:
    """Scripts with those numbers, spoken and heard; raises InputError without espeak-ng."""
    hearing, found = MelConfig(), []
    with progress("speaking", len(numbers), "scripts") as advance:
        for n in numbers:
            motion = make_motion(f"announcement-{n}", (_SEED, n), SECONDS)
            features = audio_features(audio_to_float(motion.audio), len(motion), hearing)
            found.append((motion, features.reshape(len(motion), hearing.hops, -1)))
            advance(1)
    return found


def sound_of(columns: Float[np.ndarray, "n bands"]) -> Float[np.ndarray, " f"]:
    """Mean, deviation and change of a stretch of mel columns, and the mean of its loud ones."""
    loudness = columns.mean(axis=1)
    voice = columns[loudness >= np.quantile(loudness, LOUD)]
    change = np.abs(np.diff(columns, axis=0)).mean(axis=0)
    return np.concatenate([columns.mean(axis=0), columns.std(axis=0), change, voice.mean(axis=0)])


def announced(motion: Motion) -> Bool[np.ndarray, " t"]:
    """Frames whose voice gives away the emotion that is on the face."""
    return motion.voiced & (motion.emotion > 0)


def moments(heard: Sequence[Heard], seconds: float) -> Rows:
    """What is heard around every fifth announced frame, and its emotion."""
    reach, rows, emotions = round(seconds * FRAME_RATE / 2), [], []
    for motion, mel in heard:
        for t in np.flatnonzero(announced(motion))[::STRIDE]:
            around = mel[max(t - reach, 0) : t + reach + 1]
            rows.append(sound_of(around.reshape(-1, mel.shape[-1])))
            emotions.append(motion.emotion[t])
    return np.stack(rows), np.array(emotions)


def announcements(heard: Sequence[Heard]) -> Rows:
    """What is heard of each announcement that is not cut short, and its emotion."""
    rows, emotions = [], []
    for motion, mel in heard:
        edges = np.flatnonzero(np.diff(motion.voiced.astype(int), prepend=0, append=0))
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            if stop - start >= 2.5 * FRAME_RATE:
                rows.append(sound_of(mel[start:stop].reshape(-1, mel.shape[-1])))
                emotions.append(np.bincount(motion.emotion[start:stop]).argmax())
    return np.stack(rows), np.array(emotions)


def accuracies(
    train: Sequence[Heard], test: Sequence[Heard]
) -> tuple[dict[str, float], Float[np.ndarray, "4 4"]]:
    """Share of right guesses by what is heard, and guesses of each emotion's announcements."""
    found = {}
    for seconds in AROUND:
        boosted = HistGradientBoostingClassifier(max_iter=80, random_state=0)
        found[f"{seconds:g} s"] = score(boosted, moments(train, seconds), moments(test, seconds))
    regression = LogisticRegression(max_iter=2000, C=0.01, class_weight="balanced")
    fitted, (rows, truth) = announcements(train), announcements(test)
    guesser = make_pipeline(StandardScaler(), regression)
    found["whole announcement"] = score(guesser, fitted, (rows, truth))
    guesses = guesser.predict(rows)
    kinds = range(1, len(EMOTIONS))
    table = [[np.mean(guesses[truth == one] == other) for other in kinds] for one in kinds]
    return found, np.array(table)


def score(classifier, fitted: Rows, asked: Rows) -> float:
    """Share of `asked` that is guessed right after fitting."""
    return float(np.mean(classifier.fit(*fitted).predict(asked[0]) == asked[1]))


def main() -> None:
    """Speak, fit, guess, and print what was right."""
    parser = Parser("Measure how well the announced emotions of actors can be heard.")
    parser.add_argument("--scripts", type=int, default=400, help="to fit on")
    parser.add_argument("--held_out", type=int, default=60, help="to guess")
    chosen = parser.parse_args(sys.argv[1:])
    for name in ("scripts", "held_out"):
        if getattr(chosen, name) < 20:
            raise InputError(f"--{name}={getattr(chosen, name)}: give 20 or more")
    heard = speak(range(chosen.scripts + chosen.held_out))
    found, table = accuracies(heard[chosen.held_out :], heard[: chosen.held_out])
    for name, share in found.items():
        print(f"{name}: {share:.2f}")
    names = EMOTIONS[1:]
    print("announced, taken for " + ", ".join(names))
    for name, row in zip(names, table, strict=True):
        print(f"{name}: " + " ".join(f"{share:.2f}" for share in row))


if __name__ == "__main__":
    run(main)
