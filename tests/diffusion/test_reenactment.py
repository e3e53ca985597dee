"""X-NeMo's generation against its own steps, written out in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from xactor_jax.diffusion.guidance import Conditions
from xactor_jax.diffusion.reenactment import Reenactment, gaussian_blur

DRAW = np.random.default_rng(0)
FRAMES, PLACE = 30, (12, 12, 4)
REFERENCE = DRAW.normal(size=(1, *PLACE)).astype(np.float32)
# The first number of a frame's motion says which frame it is, the reference's that it is none.
MOTION = np.stack([np.arange(FRAMES), DRAW.normal(size=FRAMES)], axis=1)[None].astype(np.float32)
STILL = np.array([[-1.0, 0.5]], np.float32)
CONDITIONS = Conditions(
    motion=jnp.asarray(MOTION),
    reference=[jnp.asarray([[[0.7]]])],
    reference_seen=jnp.ones(1, bool),
    image_token=jnp.asarray([[[0.3]]]),
)
SMALL = Reenactment(steps=3)


def network(z, level, motion, token, reference):
    """Frames that heed one another and all conditions; of NumPy or JAX, for one video."""
    mean = z.mean(axis=(0, 1, 2)) + token + reference + level
    return 0.5 * z + 0.1 * mean + 0.2 * motion[:, None, None, 1:]


def sample(settings, key):
    """The finished video and every call of the network."""
    calls = []

    @jax.jit
    def batched(z, level, c):
        reference = c.reference[0][:, 0, 0] * c.reference_seen
        return jax.vmap(network)(z, level, c.motion, c.image_token[:, 0, 0], reference)

    def denoise(z, level, conditions):
        calls.append(jax.tree.map(np.asarray, (z, level, conditions)))
        return batched(z, level, conditions)

    path = list(settings.sample(denoise, REFERENCE, CONDITIONS, STILL, jax.random.key(key)))
    return np.asarray(path[-1]), calls


@pytest.fixture(scope="module")
def sampled():
    return sample(SMALL, 0)


def windows_by_level(calls):
    """The frames of every call, call by call under the level of its step."""
    found = {}
    for _, level, conditions in calls:
        found.setdefault(float(level[0]), []).append(conditions.motion[-1, :, 0].astype(int))
    return found


def first_latents(calls):
    """The video before the first step, put together from the windows' calls."""
    video = np.full((FRAMES, *PLACE), np.nan)
    for z, level, conditions in calls:
        if level[0] == calls[0][1][0]:
            video[conditions.motion[-1, :, 0].astype(int)] = z[-1]
    assert np.all(np.isfinite(video))
    return video


def test_all_steps_equal_the_published_loop(sampled):
    video, calls = sampled
    alpha_bar = np.cumprod(1 - np.linspace(0.00085**0.5, 0.02**0.5, 1000) ** 2)
    z, still = first_latents(calls), np.repeat(STILL, FRAMES, axis=0)
    timesteps = [667, 334, 1]
    for (level, windows), t in zip(windows_by_level(calls).items(), timesteps, strict=True):
        assert level == pytest.approx(t / 1000)
        total, counts = np.zeros((2, FRAMES, *PLACE)), np.zeros((FRAMES, 1, 1, 1))
        for window in windows:
            total[0, window] += network(z[window], t / 1000, still[window], 0.0, 0.0)
            total[1, window] += network(z[window], t / 1000, MOTION[0, window], 0.3, 0.7)
            counts[window] += 1
        null, full = total / counts
        noise = null + 2.5 * (full - null)
        now, following = alpha_bar[t], alpha_bar[t - 333] if t > 333 else 1.0
        x = (z - np.sqrt(1 - now) * noise) / np.sqrt(now)
        z = np.sqrt(following) * x + np.sqrt(1 - following) * noise
    np.testing.assert_allclose(video[0], z, rtol=1e-4, atol=1e-4)  # fp32 over three steps


def test_both_halves_go_through_one_call_of_fixed_shape(sampled):
    _, calls = sampled
    assert len(calls) == 3 * 2  # steps, windows of 30 frames
    for z, level, conditions in calls:
        assert z.shape == (2, 24, *PLACE)
        np.testing.assert_array_equal(z[0], z[1])
        assert level.shape == (2,)
        np.testing.assert_array_equal(conditions.reference_seen, [False, True])
        np.testing.assert_array_equal(conditions.motion[0], np.repeat(STILL, 24, axis=0))
        frames = conditions.motion[1, :, 0].astype(int)
        np.testing.assert_array_equal(np.diff(frames) % FRAMES, np.ones(23))  # around the circle


def test_it_starts_from_the_blurred_reference_with_noise_of_every_frame_its_own(sampled):
    start = first_latents(sampled[1])
    alpha_bar = np.cumprod(1 - np.linspace(0.00085**0.5, 0.02**0.5, 1000) ** 2)[667]
    blurred = np.asarray(gaussian_blur(REFERENCE))[0]
    noise = (start - np.sqrt(alpha_bar) * blurred) / np.sqrt(1 - alpha_bar)
    # 17280 draws; p = .001.
    assert stats.kstest(noise.ravel(), "norm").statistic < 1.95 / np.sqrt(noise.size)
    correlations = np.corrcoef(noise.reshape(FRAMES, -1))[np.triu_indices(FRAMES, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(noise[0].size)
    assert np.abs(correlations.mean()) < 0.01


def test_the_published_start_is_at_timestep_953():
    start = Reenactment().start(jnp.full((1, 12, 12, 1), 100.0), 40, jax.random.key(0))
    assert start.shape == (1, 40, 12, 12, 1)
    # A constant picture stays so under the blur: √ᾱ of it, 2.37, is left; 5760 draws.
    assert np.mean(start) == pytest.approx(100 * np.sqrt(5.636e-4), abs=5 / np.sqrt(5760))


def test_a_key_is_a_video_and_seams_move(sampled):
    again, _ = sample(SMALL, 0)
    np.testing.assert_array_equal(again, sampled[0])
    other, _ = sample(SMALL, 1)
    assert np.abs(other - sampled[0]).max() > 0.1
    windows = Reenactment(steps=200).windows(100, jax.random.key(0))
    offsets = [int(cover[0][0]) for cover in windows]
    assert set(offsets) == set(range(24))


def test_without_guidance_the_network_sees_one_half_only():
    settings = Reenactment(
        steps=2, spacing="trailing", guidance=1.0, circular=False, window=16, overlap=4
    )
    _, calls = sample(settings, 0)
    assert {round(1000 * float(level[0])) for _, level, _ in calls} == {999, 499}
    for z, _, conditions in calls:
        assert z.shape == (1, 16, *PLACE)
        assert np.all(conditions.reference_seen)
        assert np.all(np.diff(conditions.motion[0, :, 0]) == 1)  # no window wraps


def test_blur_equals_a_mirrored_convolution():
    taps = stats.norm.pdf(np.arange(-4, 5), scale=18)
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    blurred = gaussian_blur(jnp.asarray(REFERENCE))
    for c in range(4):
        expected = ndimage.correlate(REFERENCE[0, ..., c].astype(float), kernel, mode="mirror")
        np.testing.assert_allclose(blurred[0, ..., c], expected, atol=1e-5)


def test_an_unknown_spacing_is_named():
    with pytest.raises(ValueError, match="'linear'"):
        Reenactment(spacing="linear")


def test_few_steps_begin_at_pure_noise_and_do_not_wrap_around():
    assert Reenactment.of(35, 2.5) == Reenactment()
    few = Reenactment.of(8, 1.0)
    # Of 1000 timesteps; the published 35 begin at 953.
    np.testing.assert_allclose(few.levels[0], 0.999, atol=1e-6)
    for windows in few.windows(60, jax.random.key(0)):
        assert all(np.all(np.diff(window) == 1) for window in windows)
