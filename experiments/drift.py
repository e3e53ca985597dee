"""The drift experiment: ways to train, and to sample, compared minute by minute.

python -m experiments.drift --renderer=runs/autoencoder/model.safetensors \\
    --actors=data/actors_2 --workdir=runs/drift --output=docs

Trains every variant of configs/drift.py and measures each over minutes of speech that no training
heard. A stopped experiment goes on where it was: trainings resume, and what `drift.json` holds of
the same weights and settings is not measured again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.drift import AFTER, get_config
from experiments.drift_report import write_report
from xactor_jax.checkpoint import load_kind
from xactor_jax.command import Parser, run, start_up
from xactor_jax.config import build
from xactor_jax.data.tracks import shards_digest
from xactor_jax.errors import InputError
from xactor_jax.evaluation.drift import scripts
from xactor_jax.evaluation.drift_bench import (
    DriftBench,
    encode_held_out_actors,
    read_training_actors,
)
from xactor_jax.evaluation.report import write_json
from xactor_jax.motion_sampler import MotionSampler, MotionSampling
from xactor_jax.release import PortraitRenderer, open_motion
from xactor_jax.state import digest
from xactor_jax.tasks import make_task
from xactor_jax.train import train


@dataclasses.dataclass(frozen=True)
class Run:
    """One variant of the training, sampled in one way."""

    name: str
    variant: str = ""  # of configs/drift.py; empty: its name
    sampling: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    whole: bool = False  # all minutes and their frames; the others are ablations
    repeated: bool = False  # all minutes, of voices that say their first one again and again

    @property
    def trained(self) -> str:
        """The variant that is trained."""
        return self.variant or self.name

    def minutes(self, chosen: Namespace) -> int:
        """Of each voice."""
        return chosen.minutes if self.whole or self.repeated else chosen.ablation_minutes


RUNS = (
    *(
        Run(name, whole=True)
        for name in ("mixture", "teacher_forcing", "independent", "full_sequence", "own_history")
    ),
    Run("mixture_again", whole=True),
    Run("chunk_25", whole=True),
    Run("own_history_25", whole=True),
    Run("shared_modulation", whole=True),
    Run("mixture_repeated", "mixture_again", repeated=True),
    Run("own_history_repeated", "own_history", repeated=True),
    Run("context_1"),
    Run("mixture_longer"),
    Run("in_flight_2", "mixture", {"chunks_in_flight": 2}),
    Run("in_flight_5", "mixture", {"chunks_in_flight": 5}),
    Run("history_level_0", "mixture", {"history_level": 0.0}),
    Run("history_level_5", "mixture_again", {"history_level": 0.05}),
    Run("noised_commit", "mixture", {"commit": "noised"}),
    Run("kept_commit", "mixture_again", {"commit": "kept"}),
    Run("history_guidance", "mixture_again", {"history_guidance": 1.5}),
    Run("audio_guidance_1", "mixture", {"audio_guidance": 1.0}),
    Run("audio_guidance_2", "mixture", {"audio_guidance": 2.0}),
    Run("emotion_guidance_1", "mixture", {"emotion_guidance": 1.0}),
    Run("emotion_guidance_6", "mixture", {"emotion_guidance": 6.0}),
    Run("guided_while_told", "mixture_again", {"guide_remembered": False}),
    Run("guided_more", "mixture", {"audio_guidance": 1.5, "emotion_guidance": 6.0}),
    Run("guided_more_25", "chunk_25", {"audio_guidance": 1.5, "emotion_guidance": 6.0}),
    Run("context_4"),
    Run("chunk_10"),
    Run("audio_window_2"),
    Run("audio_window_8"),
)


def flags(arguments: list[str]) -> Namespace:
    """Read and check the command's flags. Raises InputError."""
    parser = Parser("Train and compare the variants of configs/drift.py.")
    parser.add_argument("--renderer", required=True, help="weights of an autoencoder")
    parser.add_argument("--actors", required=True, help="folder of synthetic actors")
    parser.add_argument("--workdir", required=True, help="folder of the trainings")
    parser.add_argument("--output", default="docs", help="folder of drift.json, drift.md and plots")
    parser.add_argument("--voices", type=int, default=8, help="that speak")
    parser.add_argument("--minutes", type=int, default=10, help="of each voice")
    parser.add_argument("--ablation_minutes", type=int, default=4, help="... in ablations")
    parser.add_argument("--steps", type=int, help="of every training, instead of the config's")
    parser.add_argument("--only", default="", help="some of the runs, with commas between")
    chosen = parser.parse_args(arguments)
    for name, lowest, highest in (("voices", 2, 1000), ("minutes", 2, 600), ("steps", 200, 10**7)):
        value = getattr(chosen, name)
        if value is not None and not lowest <= value <= highest:
            raise InputError(f"--{name}={value}: use {lowest} to {highest}")
    if not 2 <= chosen.ablation_minutes <= chosen.minutes:
        raise InputError(f"--ablation_minutes={chosen.ablation_minutes}: use 2 to --minutes")
    names = [each.name for each in RUNS]
    for name in filter(None, chosen.only.split(",")):
        if name not in names:
            raise InputError(f"--only={name}: choose from {', '.join(names)}")
    return chosen


def weights_of(variant: str, chosen: Namespace) -> Path:
    """The trained weights of a variant, after training what is not trained yet."""
    workdir, config = Path(chosen.workdir) / variant, get_config(variant)
    config.renderer, config.data.folders = chosen.renderer, (chosen.actors,)
    config.data.cache = str(Path(chosen.workdir) / "latents")
    if chosen.steps is not None:
        config.steps = chosen.steps // 5 if variant in AFTER else chosen.steps
        config.evaluate_every = config.steps
    if variant in AFTER:
        config.initial_weights = str(weights_of(AFTER[variant], chosen))
    print(f"{variant}: {config.steps} steps in {workdir}")
    if train(config, make_task(config), workdir) < config.steps:
        raise InputError(f"{workdir}: stopped; the same command goes on")
    return workdir / "model.safetensors"


def made_by_of(
    each: Run, weights: Path, chosen: Namespace, shared: Mapping[str, Any]
) -> dict[str, Any]:
    """What a run's numbers depend on; `shared`: what those of all runs do."""
    return {
        **shared,
        "variant": each.trained,
        "weights": digest(load_kind(weights, "motion")[0]["params"]),
        "sampling": dataclasses.asdict(sampling_of(each)),
        "minutes": each.minutes(chosen),
        **({"repeated": True} if each.repeated else {}),
    }


def sampling_of(each: Run) -> MotionSampling:
    """The sampling of the variant's config, with the run's changes."""
    config = get_config(each.trained)
    return build(MotionSampling, config.sampling.to_dict() | dict(each.sampling))


def measure(
    each: Run, sampler: MotionSampler, bench: DriftBench, chosen: Namespace
) -> dict[str, Any]:
    """The numbers of a run."""
    bench = bench.repeating() if each.repeated else bench
    return bench.measure(
        sampler,
        sampling_of(each),
        0,
        minutes=each.minutes(chosen),
        rendering=bench.renderer.config.sampling if each.whole else None,
    )


def read_results(path: Path, shared: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured before by what all runs share; other numbers cannot stand beside it.

    Raises InputError for a file that cannot be read.
    """
    if not path.is_file():
        return {"runs": {}}
    try:
        runs = json.loads(path.read_text())["runs"]
    except (KeyError, OSError, ValueError) as error:
        raise InputError(f"{path}: not this experiment's results ({error}); move it") from None
    return {
        "runs": {
            name: each for name, each in runs.items() if shared.items() <= each["made_by"].items()
        }
    }


def shared_by_all(chosen: Namespace, renderer: PortraitRenderer) -> dict[str, Any]:
    """Digests of the renderer, the actors, and what the voices say; how many speak."""
    [script] = scripts(1, 1, lambda done: None)
    return {
        "renderer": digest(renderer.weights[0]),
        "actors": shards_digest(Path(chosen.actors)),
        "script": hashlib.sha256(script.audio.tobytes()).hexdigest()[:12],
        "voices": chosen.voices,
    }


def main() -> None:
    """Train and measure what is missing, and write the report after every run."""
    chosen = flags(sys.argv[1:])
    start_up()
    folder, renderer = Path(chosen.output), PortraitRenderer(Path(chosen.renderer))
    folder.mkdir(parents=True, exist_ok=True)
    shared = shared_by_all(chosen, renderer)
    results, bench = read_results(folder / "drift.json", shared), None
    wanted = chosen.only.split(",") if chosen.only else [each.name for each in RUNS]
    for each in RUNS:
        if each.name not in wanted:
            continue
        weights = weights_of(each.trained, chosen)
        made_by = made_by_of(each, weights, chosen, shared)
        if results["runs"].get(each.name, {}).get("made_by") == made_by:
            continue
        if bench is None:
            bench = DriftBench.of(
                chosen.actors,
                renderer,
                read_training_actors(chosen.actors, renderer),
                encode_held_out_actors(chosen.actors, renderer),
                chosen.voices,
                chosen.minutes,
            )
        sampler = open_motion(weights, renderer)
        results["runs"][each.name] = measure(each, sampler, bench, chosen) | {"made_by": made_by}
        write_json(folder / "drift.json", results)
        write_report(folder, results)
        print(f"{each.name}: measured")


if __name__ == "__main__":
    run(main)
