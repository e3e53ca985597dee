"""The drift experiment: variants that differ as they say, and a page whose words are kept."""

import json

import numpy as np
import pytest

from configs.drift import VARIANTS, get_config
from experiments.drift import RUNS, flags, read_results
from experiments.drift_report import write_report
from xactor_jax.config import build
from xactor_jax.diffusion.noise_levels import Forcing
from xactor_jax.diffusion.rollout import Rollout
from xactor_jax.errors import InputError


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_sees_as_many_frames_and_fits_its_context(variant):
    config = get_config(variant)
    motion = config.motion
    assert motion.context % motion.chunk == 0
    assert config.batch_size * motion.context == 1000
    forcing = build(Forcing, config.forcing.to_dict())
    assert (variant == "full_sequence") == (motion.chunk == motion.context)
    # What teacher forcing is: a history without noise, said to be clean.
    clean = forcing.shares[0] == sum(forcing.shares) and not forcing.history_level
    assert clean == (variant == "teacher_forcing")


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_every_run_can_be_sampled(run):
    config = get_config(run.trained)
    if config.motion.chunk == config.motion.context:
        return  # in windows, not chunk after chunk
    fields = {**config.sampling.to_dict(), **run.sampling}
    known = {name: fields[name] for name in fields if name in Rollout.__dataclass_fields__}
    flow = None  # not asked for anything here
    Rollout(chunk=config.motion.chunk, context=config.motion.context, flow=flow, **known)


def measured(frechet):
    """A run's section as experiments/drift.py stores it."""
    names = ("mouth_r", "yaw_range", "yaw_range_true", "pitch_range", "pitch_range_true")
    names += ("blinks", "blinks_true", "emotion_announced", "emotion_held")
    names += ("told_announced", "told_held")
    names += ("deviation_ratio", "velocity_ratio", "identity", "colour", "sharpness")
    ends = {f"{name}_{end}": 1.0 for name in ("deviation", "velocity") for end in ("least", "most")}
    return ends | {
        "frechet_ratio": frechet[-1] / frechet[0],
        "mouth_ratio": 0.9,
        "emotion_announced": 0.5,
        "emotion_held": float("nan"),
        "emotion_real": 0.9,
        "minutes": {name: [0.25, None] for name in names} | {"frechet": frechet},
        "n": {"voices": 8, "minutes": 2},
        "made_by": {},
    }


def test_the_page_shows_the_numbers_and_keeps_its_words(tmp_path):
    page = tmp_path / "drift.md"
    page.write_text("# Drift\n\nFound: it drifts.\n")
    runs = {"mixture": measured([1.25, 1.5]), "context_1": measured([3.0, np.pi])}
    write_report(tmp_path, {"runs": runs})
    first = page.read_text()
    assert "Found: it drifts." in first
    assert "| (c) mixture | 1.25 | 1.5 | 1.2 | 1 to 1 |" in first
    assert "| context_1 | 3 | 3.14 | 1.05 |" in first
    write_report(tmp_path, {"runs": runs})
    assert page.read_text() == first
    runs["teacher_forcing"] = measured([1.0, 9.0])
    page.write_text(first + "\nAfterwards.\n")
    runs["mixture_repeated"] = measured([2.0, 3.0]) | {"made_by": {"repeated": True}}
    write_report(tmp_path, {"runs": runs})
    assert "| (a) teacher forcing | 1 | 9 | 9 |" in page.read_text()
    again = page.read_text().split("first minute, again and again")[1]
    assert "| mixture_repeated | 2 | 3 | 1.5 |" in again.split("8 voices")[1]
    assert page.read_text().endswith("Afterwards.\n")
    assert "another training" not in page.read_text()
    assert (tmp_path / "drift.png").stat().st_size > 0


def test_runs_of_other_weights_than_their_variant_s_are_marked(tmp_path):
    runs = {"mixture": measured([1.0, 2.0]), "context_1": measured([1.0, 3.0])}
    for name, variant, weights in (
        ("mixture", "mixture", "new"),
        ("context_1", "context_1", "its own"),
        ("in_flight_2", "mixture", "old"),
        ("in_flight_5", "mixture", "new"),
        ("mixture_repeated", "mixture", "old"),
    ):
        runs.setdefault(name, measured([1.0, 4.0]))
        runs[name]["made_by"] = {"variant": variant, "weights": weights}
    runs["mixture_repeated"]["made_by"]["repeated"] = True
    write_report(tmp_path, {"runs": runs})
    page = (tmp_path / "drift.md").read_text()
    starred = [line.split("|")[1].strip() for line in page.splitlines() if "\\* |" in line]
    assert starred == ["mixture_repeated \\*", "in_flight_2 \\*"]
    assert "\\* sampled from weights of another training of the same variant" in page


def test_runs_are_compared_over_the_minutes_that_all_have(tmp_path):
    longer, shorter = measured([2.0, 4.0, 8.0]), measured([1.0, 3.0])
    others = {key: [0.5, 0.7, 0.1] for key in longer["minutes"]}
    longer["minutes"] = others | {"frechet": longer["minutes"]["frechet"]}
    longer["n"] = {"voices": 8, "minutes": 3}
    write_report(tmp_path, {"runs": {"mixture": longer, "context_1": shorter}})
    ablations = (tmp_path / "drift.md").read_text().split("![curves]")[1]
    assert "8 voices of 2 minutes each" in ablations
    row = next(line for line in ablations.splitlines() if line.startswith("| mixture"))
    expected = [2, 4, 2, "0.5 to 0.7", "0.5 to 0.7", 0.5, 1.4, 0.6, 0.6, 0.6, 0.6, 0.1, 0.7, 0.7]
    assert row == f"| mixture | {' | '.join(map(str, expected))} |"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("--only=juggling", "juggling"),
        ("--minutes=1", "minutes=1"),
        ("--ablation_minutes=11", "ablation_minutes=11"),
    ],
)
def test_what_cannot_be_run_is_named(wrong, message):
    with pytest.raises(InputError, match=message):
        flags(["--renderer=r", "--actors=a", "--workdir=w", wrong])


def test_results_of_something_else_are_not_overwritten(tmp_path):
    (tmp_path / "drift.json").write_text("not JSON")
    with pytest.raises(InputError, match=r"drift\.json"):
        read_results(tmp_path / "drift.json", {})


def test_numbers_of_another_setup_do_not_stand_beside_these(tmp_path):
    def of(renderer: str, weights: str) -> dict:
        return {"made_by": {"renderer": renderer, "weights": weights}}

    file = tmp_path / "drift.json"
    file.write_text(json.dumps({"runs": {"mixture": of("new", "1"), "context_1": of("old", "2")}}))
    assert read_results(file, {"renderer": "new"}) == {"runs": {"mixture": of("new", "1")}}
