"""What objectives say of their data without any is what tasks read."""

import jax
import numpy as np
import pytest
from small_models import autoencoder_config, motion_config, renderer_file, video_config
from small_models import quick_compilation as quick_compilation

from xactor_jax.tasks import make_objective, make_task


def of(tree):
    return jax.tree.map(lambda leaf: (tuple(leaf.shape), np.dtype(leaf.dtype)), tree)


@pytest.mark.parametrize("name", ["autoencoder", "motion", "video"])
def test_shapes_are_those_of_the_data(name, tmp_path_factory):
    if name == "autoencoder":
        config = autoencoder_config(tmp_path_factory)
    else:
        configs = {"motion": motion_config, "video": video_config}
        config = configs[name](tmp_path_factory, renderer_file(tmp_path_factory))
    task, objective = make_task(config), make_objective(config)
    example = task.load(task.source()[0], np.random.default_rng(0))
    example = {key: np.asarray(value) for key, value in example.items()}
    assert of(objective.example_shapes) == of(example)
    assert of(objective.frozen_shapes) == of(task.frozen)
