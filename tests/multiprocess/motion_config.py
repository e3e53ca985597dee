"""A training of a small motion transformer that is over soon, with one evaluation at its end."""

from small_models import motion_config


def get_config():
    changes = {"steps": 3, "save_every": 3, "evaluate_every": 3}
    # A held-out clip for each process, and branches of guidance: rows that the mesh divides.
    return motion_config(None, "", **changes, **{"mesh.fsdp": 2, "mesh.context": 2}).unlock()
