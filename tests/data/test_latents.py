"""Tracks of latents and audio: whole clips in order, made once, cut into windows."""

import dataclasses
import pickle
import shutil

import numpy as np
import pytest
from data.flat_clips import make_clip, seen

from xactor_jax.data.audio_features import MelConfig, audio_features
from xactor_jax.data.direction import WIDTH
from xactor_jax.data.latents import (
    MotionExamples,
    cached_tracks,
    encode_clips,
    features_folder,
    provenance,
    write_features,
)
from xactor_jax.data.shards import write_shards
from xactor_jax.data.tracks import Track, Tracks, write_tracks
from xactor_jax.errors import InputError

MEL, CROP = MelConfig(bands=4, hops=2), 8


def encode(crops):
    """Frame number and clip number of each crop."""
    return np.array([(time, number) for _, time, number in seen(crops)], np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    train = [
        make_clip("a", "anna", 5, start=6, number=0),  # the later part comes first
        make_clip("b", "ben", 4, number=1),
        make_clip("a", "anna", 6, number=0),
        make_clip("m-cleo", "cleo", 3, source="actor", motion="m", number=2),
        make_clip("m-dora", "dora", 3, source="actor", motion="m", number=3),
    ]
    write_shards(folder, {"train": train, "test": []})
    return str(folder)


def test_segments_of_a_clip_are_joined_in_order(folder):
    tracks = {track.clip: track for track in encode_clips(folder, "train", encode, CROP, MEL)}
    assert list(tracks["a"].latents[:, 0]) == list(range(11))
    assert list(tracks["b"].latents[:, 0]) == list(range(4))
    whole = make_clip("a", "anna", 11, number=0)
    audio = whole.audio.astype(np.float32) / 32768
    np.testing.assert_array_equal(tracks["a"].audio, audio_features(audio, 11, MEL))
    assert (tracks["a"].source, tracks["a"].identity) == ("footage", "anna")


def test_of_a_motion_with_several_renderings_one_is_taken(folder):
    tracks = list(encode_clips(folder, "train", encode, CROP, MEL))
    assert [track.clip for track in tracks] == ["a", "b", "m-cleo"]


@pytest.fixture
def cached(folder, tmp_path):
    """Tracks through a cache; calls of the encoder are counted."""
    calls = []

    def counted(crops):
        calls.append(len(crops))
        return encode(crops)

    def tracks(folders=(folder,), split="train", crop=CROP, mel=MEL, encoder="one"):
        calls.clear()
        cache = str(tmp_path / "cache")
        chosen = [(folder, split) for folder in folders]
        return cached_tracks(cache, encoder, chosen, counted, crop, mel), sum(calls)

    return tracks


def assert_same(tracks, others):
    for one, other in zip(tracks, others, strict=True):
        assert (one.clip, one.source, one.identity) == (other.clip, other.source, other.identity)
        np.testing.assert_array_equal(one.latents, other.latents)
        np.testing.assert_array_equal(one.audio, other.audio)
        np.testing.assert_array_equal(one.direction, other.direction)


def test_tracks_are_encoded_once_and_read_back_whole(cached, folder):
    first, encoded = cached()
    assert encoded == 11 + 4 + 3
    assert_same(first, list(encode_clips(folder, "train", encode, CROP, MEL)))
    again, encoded = cached()
    assert encoded == 0
    assert_same(first, again)


def test_other_weights_features_or_crops_are_encoded_anew(cached):
    assert cached()[1] == 18
    assert cached(mel=MelConfig(bands=3, hops=2))[0][0].audio.shape == (11, 6)
    assert cached(crop=10)[1] == 18
    assert cached(encoder="two")[1] == 18


def test_clips_prepared_anew_are_encoded_anew(cached, tmp_path):
    place = tmp_path / "again"
    for length in (3, 4):
        shutil.rmtree(place, ignore_errors=True)
        write_shards(place, {"train": [make_clip("c", "emil", length, number=4)]})
        assert cached(folders=(str(place),))[1] == length


def test_folders_of_one_name_are_told_apart(cached, folder, tmp_path):
    other = tmp_path / "elsewhere" / folder.rpartition("/")[2]
    write_shards(other, {"train": [make_clip("c", "emil", 2, number=4)]})
    found, _ = cached(folders=(folder, str(other)))
    assert [track.clip for track in found] == ["a", "b", "m-cleo", "c"]


def test_a_split_without_clips_has_no_tracks(cached):
    assert list(cached(split="test")[0]) == []
    assert list(cached(split="test")[0]) == []


@pytest.fixture
def beside(folder, tmp_path):
    """A folder of shards with features of the encoder "one" beside them."""
    place = shutil.copytree(folder, tmp_path / "shards")
    made_by = provenance(place, "train", "one", CROP, MEL)
    write_features(place, "train", features_folder(place, "train"), made_by, encode, CROP, MEL)
    return place


def test_features_beside_the_shards_are_read_and_nothing_is_encoded(cached, beside, tmp_path):
    found, encoded = cached(folders=(str(beside),))
    assert encoded == 0 and not (tmp_path / "cache").exists()
    assert_same(found, list(encode_clips(beside, "train", encode, CROP, MEL)))
    elsewhere = shutil.copytree(beside, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    assert cached(folders=(str(elsewhere),))[1] == 0  # on another machine, with other dates


@pytest.mark.parametrize(
    ("changes", "other"),
    [
        ({"encoder": "two"}, "encoder"),
        ({"mel": MelConfig(bands=3, hops=2)}, "hearing"),
        ({"encoder": "two", "crop": 10}, "encoder and crop_size"),
    ],
)
def test_stale_features_are_refused(cached, beside, changes, other):
    with pytest.raises(InputError) as error:
        cached(folders=(str(beside),), **changes)
    message = str(error.value)
    assert message.startswith(f"{beside / 'features-train'}: made with another {other} than")
    assert "xactor_jax.data.features --folders=" in message and "\n" not in message


def test_features_of_shards_that_were_written_anew_are_refused(cached, beside):
    write_shards(beside, {"train": [make_clip("c", "emil", 3, number=4)]})
    with pytest.raises(InputError, match="another shards"):
        cached(folders=(str(beside),))
    made_by = provenance(beside, "train", "one", CROP, MEL)
    write_features(beside, "train", beside / "features-train", made_by, encode, CROP, MEL)
    assert [track.clip for track in cached(folders=(str(beside),))[0]] == ["c"]


def test_what_breaks_off_leaves_no_features(folder, tmp_path):
    seen = []

    def breaking(crops):
        seen.append(len(crops))
        return encode(crops) if len(seen) < 3 else 1 / 0

    with pytest.raises(ZeroDivisionError):
        cached_tracks(str(tmp_path / "cache"), "one", [(folder, "train")], breaking, CROP, MEL)
    assert len(seen) == 3 and list((tmp_path / "cache").iterdir()) == []


def test_of_two_processes_that_encode_the_same_the_first_to_finish_is_kept(folder, tmp_path):
    to, made_by = tmp_path / "cache" / "features", provenance(tmp_path, "train", "one", CROP, MEL)
    kept = []

    def slow(crops):
        # Another process, which may have the same number in another container, is done meanwhile.
        if not kept:
            write_features(folder, "train", to, made_by, encode, CROP, MEL)
            kept.extend(Tracks([to]))
        return encode(crops)

    write_features(folder, "train", to, made_by, slow, CROP, MEL)
    assert [track.clip for track in kept] == ["a", "b", "m-cleo"]
    files = {path.name: path.stat().st_ino for path in to.iterdir()}
    write_tracks(to, list(Tracks([to])), 18, made_by)
    assert files == {path.name: path.stat().st_ino for path in to.iterdir()}
    assert list(to.parent.iterdir()) == [to]


def test_worker_processes_get_places_not_arrays(cached, folder):
    tracks, _ = cached()
    assert_same(pickle.loads(pickle.dumps(tracks)), list(tracks))
    list(tracks)
    assert len(pickle.dumps(tracks)) < 2_000  # latents alone would be more
    assert [track.clip for track in tracks[-2:]] == ["b", "m-cleo"]


def ramp(clip, length):
    """A track whose latents and audio count frames."""
    time = np.arange(length, dtype=np.float32)
    audio = time[:, None] + np.arange(8, dtype=np.float32) / 8
    direction = np.repeat(time[:, None] + 1, WIDTH, axis=1)
    return Track(clip, "footage", "anna", np.stack([time, -time], axis=1), audio, direction)


def motion_examples(**changes):
    return MotionExamples([ramp("a", 12), ramp("b", 7)], 5, 2, stride=3, bands=4, **changes)


def test_windows_hold_latents_and_the_audio_around_them():
    examples, starts = motion_examples(), {0: set(), 1: set()}
    assert [tuple(examples[i].values()) for i in range(len(examples))] == [
        *((0, start) for start in (0, 3, 6, 7)),
        *((1, start) for start in (0, 2)),
    ]
    for seed in range(200):
        element = examples[seed % len(examples)]
        clip, length = element["clip"], (12, 7)[element["clip"]]
        example = examples.load(element, np.random.default_rng(seed))
        assert example["latents"].shape == (5, 2)
        start = int(example["latents"][0, 0])
        starts[clip].add(start)
        assert element["start"] <= start < element["start"] + 3
        np.testing.assert_array_equal(example["latents"][:, 0], start + np.arange(5))
        places = start + np.arange(-2, 7)
        known = (places >= 0) & (places < length)
        np.testing.assert_array_equal(example["audio_known"], known)
        np.testing.assert_allclose(example["audio"][known, 0], places[known])
        assert np.all(example["audio"][~known] == 0)
        assert example["reference"][0] in range(length)
        told = example["direction"] != 0  # what is told is told of its own frame
        assert np.all(example["direction"][told] == (start + 1 + np.nonzero(told)[0]))
    assert starts == {0: set(range(8)), 1: set(range(3))}  # no start is left out


def test_portraits_can_be_from_other_clips_of_the_person_alone():
    tracks = [ramp("a", 12), ramp("b", 7), dataclasses.replace(ramp("c", 9), identity="ben")]
    for n, track in enumerate(tracks):
        track.latents[:] = n
    examples = MotionExamples(tracks, 5, 2, stride=3, bands=4, other_clip=0.5)
    found = {clip: [] for clip in range(3)}
    for seed in range(400):
        element = examples[seed % len(examples)]
        example = examples.load(element, np.random.default_rng(seed))
        assert np.all(example["latents"] == element["clip"])
        found[element["clip"]].append(example["reference"][0])
    assert set(found[0]) == set(found[1]) == {0.0, 1.0} and set(found[2]) == {2.0}
    # Half of the portraits are from either of anna's two clips, whichever the window is of.
    assert np.mean(np.array(found[0]) == 1) == pytest.approx(0.25, abs=0.1)


def test_another_voice_is_shifted_in_frequency_and_level():
    element, moves = {"clip": 0, "start": 2}, {"gain": [], "band_shift": []}
    for seed in range(20):
        plain = motion_examples().load(element, np.random.default_rng(seed))
        for name, found in moves.items():
            examples = motion_examples(**{name: 0.5})
            changed = examples.load(element, np.random.default_rng(seed))
            np.testing.assert_array_equal(changed["latents"], plain["latents"])
            # Features rise by 1/8 a band; the first and last bands have no neighbour to move to.
            move = (changed["audio"] - plain["audio"]).reshape(9, 2, 4)[..., 1:3]
            assert np.ptp(move) < 1e-5  # one voice all along
            found.append(move.mean())
    for name, most in (("gain", 0.5), ("band_shift", 0.5 / 8)):
        assert np.abs(moves[name]).max() <= most + 1e-6
        assert np.ptp(moves[name]) > most
