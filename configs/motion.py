"""Acting: the motion transformer, trained by diffusion forcing on the autoencoder's latents.

X-Actor's first stage. Its paper states the attention (full inside a chunk, causal across chunks),
the windowed audio and the noise levels drawn asynchronously; sizes, chunk length and the mixture of
noise levels are our defaults (diffusion/noise_levels.py says why a mixture).

    python -m xactor_jax.main --config=configs/motion.py:tiny --workdir=runs/motion \\
        --config.renderer=runs/autoencoder/model.safetensors

A second stage goes on from those weights, with what the model itself nearly acts as half of the
histories. In the drift experiment (docs/drift.md) it made performers livelier, with chunks of five
also more obedient, at some cost in distance to real motion; a large one with chunks of 25:

    python -m xactor_jax.main --config=configs/motion.py:tiny --workdir=runs/motion_2 \\
        --config.renderer=runs/autoencoder/model.safetensors \\
        --config.initial_weights=runs/motion/model.safetensors \\
        --config.loss.own_history=0.5 --config.steps=1600

On two CPU cores tiny does 5 steps a second, once all clips are encoded; its 8,000 steps reached
what the README has.

`SLICES` names the devices that each size is meant for; `python -m xactor_jax.plan` says what it
needs on them or on others.
"""

from ml_collections import ConfigDict

from configs.common import base, check_size

SLICES = {"tiny": "cpu:1", "full": "v5e:2x4"}


def get_config(size: str = "full") -> ConfigDict:
    """`tiny` trains on two CPU cores, `full` on accelerators."""
    check_size(size)
    config = base("motion")
    config.renderer = ""  # weights of the autoencoder, or a folder of converted ones
    config.sampling = ConfigDict(  # what the weights are acted with by default
        {
            "steps": 10,
            "chunks_in_flight": 1,
            "audio_guidance": 2.0,
            "emotion_guidance": 3.0,
            "guide_remembered": False,
            "history_guidance": 1.0,
            "history_level": 0.02,
            "commit": "scaled",  # or noised, kept: diffusion/rollout.py
            "sink": 0,
        }
    )
    config.steps, config.batch_size = 400_000, 256
    config.optimizer.update({"learning_rate": 1e-4, "warmup_steps": 5_000, "weight_decay": 1e-3})
    config.mel = ConfigDict({"bands": 40, "hops": 4})
    config.wav2vec2 = ""  # weights of a converted one, to hear by it and not by mel features
    config.motion = ConfigDict(
        {
            "width": 1024,
            "depth": 8,
            "heads": 8,
            "feed_forward": 4,
            "chunk": 25,  # best in docs/drift.md; 5 and 10 answer a live voice sooner
            "context": 250,
            "audio_window": 2,
            "shared_modulation": True,  # of PixArt-alpha: a quarter fewer parameters
            "relative": False,
            "dtype": "bfloat16",
            "scan": True,
            "rematerialise": True,
        }
    )
    config.flow = ConfigDict({"prediction": "velocity", "floor": 0.05})
    config.forcing = ConfigDict(
        {
            "clean_history": 0.5,
            "staircase": 0.25,
            "independent": 0.25,
            "per_frame": 0.0,
            "clean_prefix": 0.0,
            "propagated": 0.0,
            "in_flight": 2,
            "shift": 3.0,  # towards noise, where voice and direction count (docs/drift.md)
            "history_level": 0.05,
            "noised_history": 0.5,
            "drop_history": 0.2,
        }
    )
    config.loss = ConfigDict(
        {
            "drop_audio": 0.1,
            "drop_reference": 0.1,
            "own_history": 0.0,  # for a second stage, from initial_weights
            "fused_snr": False,
        }
    )
    config.data = ConfigDict(
        {
            "folders": ("data/footage", "data/actors"),
            "cache": "runs/latents",
            "windows": {
                "stride": 10,
                "band_shift": 0.0,
                "gain": 0.0,
                "footage_share": 0.5,
                "other_clip": 0.5,  # share of windows whose portrait is from any clip of the person
                "drop_direction": 0.3,  # share of windows in which the performer is told nothing
                "drop_kind": 0.5,  # ... and of each kind of direction, where something is told
            },
        }
    )
    if size == "tiny":
        _make_tiny(config)
    return config


def _make_tiny(config: ConfigDict) -> None:
    config.steps, config.batch_size = 8_000, 16
    config.log_every, config.save_every, config.evaluate_every = 50, 500, 1_000
    config.read_threads, config.weights_dtype = 2, "float16"
    config.motion.update(
        {
            "width": 192,
            "depth": 4,
            "heads": 4,
            "chunk": 5,
            "context": 70,  # just under the three seconds of a GRID clip
            "audio_window": 4,  # a mel frame has no context of its own
            "dtype": "float32",
            "scan": False,
            "rematerialise": False,
            "shared_modulation": False,
            "relative": True,  # one person's footage cannot teach what is a person's own
        }
    )
    config.flow.update({"prediction": "sample", "floor": 0.15})
    config.data.windows.update({"stride": 5, "band_shift": 1.5, "gain": 0.15, "footage_share": 0.4})
    config.data.windows.drop_direction = 0.15  # footage, which tells nothing, has its share as well
    config.optimizer.update(
        {
            "learning_rate": 1e-3,
            "warmup_steps": 100,
            "schedule": "cosine",
            "weight_decay": 5e-2,
            "ema_decay": 0.998,
        }
    )
