"""Ways to train the motion transformer, at one size and budget: what experiments/drift.py compares.

    python -m experiments.drift --renderer=runs/autoencoder/model.safetensors \\
        --actors=data/actors_2 --workdir=runs/drift --output=docs

trains and measures all of them; one alone is trained by

    python -m xactor_jax.main --config=configs/drift.py:teacher_forcing --workdir=runs/one \\
        --config.renderer=runs/autoencoder/model.safetensors

They see synthetic actors only, whose takes are longer than ten seconds of context. Where the
context is shorter the batch is larger: every step of every variant sees as many frames.
`SLICES` names the devices that they are meant for.
"""

from ml_collections import ConfigDict

from configs import motion

SLICES = {"mixture": "cpu:1"}

ALONE = {"clean_history": 0.0, "staircase": 0.0, "independent": 1.0}

VARIANTS = {
    # A clean history and nothing else (Motar's and most autoregressive trainings).
    "teacher_forcing": {
        "forcing": {
            "clean_history": 1.0,
            "staircase": 0.0,
            "independent": 0.0,
            "history_level": 0.0,
            "noised_history": 0.0,
            "drop_history": 0.0,
        },
        "sampling": {"history_level": 0.0},
    },
    "independent": {"forcing": ALONE},  # the literal reading of diffusion forcing, but for `shift`
    "mixture": {},
    "mixture_again": {},  # from another seed: what trainings differ by
    # After the mixture: a fifth as many steps again, with the model's own near-truth as history ...
    "own_history": {"loss": {"own_history": 0.5}},
    "mixture_longer": {},  # ... and as many without, to tell the two apart
    "full_sequence": {"motion": {"chunk": 250}, "forcing": ALONE},
    "context_1": {"motion": {"context": 25}},
    "context_4": {"motion": {"context": 100}},
    "chunk_10": {"motion": {"chunk": 10}},
    "chunk_25": {"motion": {"chunk": 25}},
    "shared_modulation": {"motion": {"chunk": 25, "shared_modulation": True}},
    "own_history_25": {"motion": {"chunk": 25}, "loss": {"own_history": 0.5}},  # after chunk_25
    "audio_window_2": {"motion": {"audio_window": 2}},
    "audio_window_8": {"motion": {"audio_window": 8}},
}
# They begin with another's weights.
AFTER = {"own_history": "mixture", "mixture_longer": "mixture", "own_history_25": "chunk_25"}

_CONTEXT, _FRAMES = 250, 1_000  # frames of the context, and of a batch


def get_config(variant: str = "mixture") -> ConfigDict:
    """One of `VARIANTS`; those `AFTER` another need `initial_weights`."""
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r}: use one of {', '.join(VARIANTS)}")
    config = motion.get_config("tiny")
    config.data.folders = ("data/actors_2",)  # of MODEL_CARD.md
    config.steps, config.motion.context = 6_000, _CONTEXT
    config.evaluate_every, config.optimizer.learning_rate = config.steps, 2e-3
    # Emotions are heard in a voice's pitch and loudness, which must not be disguised, and count
    # where the portrait does not give them away.
    config.data.windows.update({"other_clip": 1.0, "band_shift": 0.5, "gain": 0.05})
    config.data.windows.drop_direction = 0.3
    # The voice's guidance costs blinks and held emotions, an emotion's makes it plain; that it
    # should end with the telling was found last (`guided_while_told`).
    config.sampling.update(
        {"audio_guidance": 1.25, "emotion_guidance": 4.0, "guide_remembered": True}
    )
    config.seed = int(variant == "mixture_again")
    if variant in AFTER:
        config.steps //= 5
    for part, fields in VARIANTS[variant].items():
        config[part].update(fields)
    config.batch_size = _FRAMES // config.motion.context
    return config
