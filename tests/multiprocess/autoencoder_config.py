"""A training of a small autoencoder that is over soon, with one evaluation at its end."""

from small_models import autoencoder_config


def get_config():
    changes = {"steps": 3, "save_every": 3, "evaluate_every": 3}
    # Each source has two held-out clips: each process renders one, of which each device a picture.
    layout = {"mesh.fsdp": 2, "mesh.context": 2, "data.targets": 2}
    return autoencoder_config(None, **changes, **layout).unlock()
