"""Nested mappings become the dataclasses they describe; a misspelt field does not pass."""

import dataclasses

import pytest
from ml_collections import ConfigDict

from configs.renderer import RENDERERS, renderer
from xactor_jax.config import build, released
from xactor_jax.diffusion.processes import Flow
from xactor_jax.models.renderer import RendererConfig
from xactor_jax.models.video_dit import DiTConfig
from xactor_jax.models.video_unet import UNetConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    sizes: tuple[int, ...] = (1, 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner = Inner()
    limit: int | None = 3
    name: str = "x"


def test_nested_values_and_tuples_are_built_and_defaults_kept():
    assert build(Outer, {}) == Outer()
    built = build(Outer, {"inner": {"sizes": [4, 5]}, "limit": None})
    assert built == Outer(inner=Inner(sizes=(4, 5)), limit=None, name="x")
    hash(built)  # usable as a static argument of a compiled function


def test_a_dataclass_is_taken_as_it_is():
    assert build(Outer, {"inner": Inner(sizes=(9,))}).inner.sizes == (9,)


def test_its_own_fields_build_it_again():
    config = RendererConfig(flow=Flow(prediction="sample"))
    assert build(RendererConfig, dataclasses.asdict(config)) == config


def test_weights_files_do_not_say_how_training_saved_memory():
    config = RendererConfig(denoiser=DiTConfig(depth=3, scan=True, rematerialise=True))
    fields = released(config)
    assert build(RendererConfig, fields) == RendererConfig(denoiser=DiTConfig(depth=3))
    assert fields["denoiser"]["kind"] == "dit"
    assert "scan" not in fields["denoiser"]


@pytest.mark.parametrize("values", [{"nmae": "y"}, {"inner": {"size": (1,)}}])
def test_an_unknown_field_is_an_error_that_names_it(values):
    with pytest.raises(TypeError, match=r"'(nmae|size)'"):
        build(Outer, values)


def test_the_values_choose_between_two_networks_and_old_ones_are_a_unets():
    for denoiser in (UNetConfig(layers=1), DiTConfig(depth=3)):
        config = RendererConfig(denoiser=denoiser)
        assert build(RendererConfig, dataclasses.asdict(config)) == config
    old = {"denoiser": {"layers": 1, "channels": [8]}}
    assert build(RendererConfig, old).denoiser == UNetConfig(layers=1, channels=(8,))
    with pytest.raises(ValueError, match="kind 'mamba': use unet or dit"):
        build(RendererConfig, {"denoiser": {"kind": "mamba"}})
    with pytest.raises(TypeError, match="'layers'"):
        build(RendererConfig, {"denoiser": {"kind": "dit", "layers": 1}})


@pytest.mark.parametrize("size", RENDERERS)
def test_the_renderer_of_the_configs_builds(size):
    config = build(RendererConfig, ConfigDict(renderer(size)).to_dict())
    assert config.denoiser.motion_token == config.encoder.token_width
    assert config.image_size % config.codec.factor == 0
    assert isinstance(config.denoiser, DiTConfig) == size.endswith("_dit")
