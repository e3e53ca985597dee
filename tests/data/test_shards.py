"""Clips survive the trip to disk and back, whole, in order and cut where they should be."""

import dataclasses
import hashlib
import multiprocessing
import os
import pickle
import resource

import numpy as np
import pytest

from xactor_jax.data import shards
from xactor_jax.data.shards import Clip
from xactor_jax.errors import InputError


def make_clip(name: str, length: int, size: int = 16, truth: bool = False) -> Clip:
    """A clip whose frame t is a flat grey of brightness t and whose audio counts samples."""
    random = np.random.default_rng(length)
    known = {}
    if truth:
        known = dict(
            expression=random.random((length, 57)).astype(np.float16),
            pose=random.random((length, 5)).astype(np.float32),
            gaze=random.random((length, 2)).astype(np.float32),
            blink=random.random(length).astype(np.float32),
            emotion=random.integers(0, 5, length).astype(np.int8),
            intensity=random.random(length).astype(np.float32),
            phonemes=[[0.0, 0.1, "ə"], [0.1, 0.25, "ʃ"]],
        )
    return Clip(
        clip=name,
        source="actor" if truth else "footage",
        identity=name.split("/")[0],
        size=size,
        frames=[
            shards.encode_frame(np.full((size, size, 3), t % 256, np.uint8)) for t in range(length)
        ],
        head_box=random.random((length, 3)).astype(np.float32),
        audio=(np.arange(length * 640) % 30_000).astype(np.int16),
        **known,
    )


def assert_same(a: Clip, b: Clip) -> None:
    for field in dataclasses.fields(Clip):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype, field.name
            np.testing.assert_array_equal(x, y, err_msg=field.name)
        else:
            assert x == y if field.name != "phonemes" else list(x) == list(y), field.name


def test_round_trip_keeps_everything(tmp_path):
    clips = [make_clip("anna/a", 7), make_clip("ben/ü b", 9, truth=True)]
    shards.write_shards(tmp_path, {"train": clips, "test": [make_clip("cleo/c", 3)]})
    opened = shards.open_shards(tmp_path, "train")
    assert len(opened) == 2
    assert opened.lengths.tolist() == [7, 9]
    for i, clip in enumerate(clips):
        assert_same(opened[i], clip)
    header = opened.header(1)
    assert (header.clip, header.identity, header.source, header.length) == (
        "ben/ü b",
        "ben",
        "actor",
        9,
    )
    assert shards.open_shards(tmp_path, "test")[0].id == "cleo/c/0"
    with pytest.raises(IndexError):
        opened[2]


def write_and_digest(folder) -> str:
    """Name of what a process writes of a clip."""
    shards.write_shards(folder, {"train": [make_clip("anna/a", 7, truth=True)]})
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def test_every_process_writes_the_same_bytes(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        digests = pool.map(write_and_digest, folders, chunksize=1)
    assert len(set(digests)) == 1


def test_long_clips_become_equal_segments_that_join_to_the_whole(tmp_path):
    clip = make_clip("anna/long", 251, size=8, truth=True)
    shards.write_shards(tmp_path, {"train": [clip], "test": []})
    opened = shards.open_shards(tmp_path, "train")
    parts = [opened[i] for i in range(len(opened))]
    assert [len(part) for part in parts] == [126, 125]
    assert [part.start for part in parts] == [0, 126]
    assert [frame for part in parts for frame in part.frames] == list(clip.frames)
    for name in ("head_box", "audio", "expression", "emotion"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(clip, name))
    assert {part.motion for part in parts} == {"anna/long"}
    assert len(shards.open_shards(tmp_path, "test")) == 0


def test_frames_decode_to_what_was_encoded(tmp_path):
    colour = np.zeros((16, 16, 3), np.uint8)
    colour[...] = (200, 100, 30)
    clip = dataclasses.replace(make_clip("a", 3), frames=[shards.encode_frame(colour)] * 3)
    frames = shards.decode_frames(clip, [2, 0])
    assert frames.shape == (2, 16, 16, 3)
    # A flat colour loses only the rounding of JPEG's colour transform.
    assert np.abs(frames.astype(int) - colour).max() <= 3
    assert shards.decode_frames(clip, []).shape == (0, 16, 16, 3)


def test_writing_again_replaces_and_failing_keeps(tmp_path):
    shards.write_shards(tmp_path, {"train": [make_clip("a", 3)], "test": []})
    shards.write_shards(tmp_path, {"train": [make_clip("b", 4)], "test": []})
    (tmp_path / "clips").mkdir()

    def broken():
        yield make_clip("c", 2)
        raise RuntimeError("out of clips")

    with pytest.raises(RuntimeError):
        shards.write_shards(tmp_path, {"train": broken(), "test": []})
    opened = shards.open_shards(tmp_path, "train")
    assert [opened[i].clip for i in range(len(opened))] == ["b"]
    assert not (tmp_path / ".shards.partial").exists()
    assert (tmp_path / "clips").is_dir()


def test_opened_shards_travel_to_another_process(tmp_path):
    shards.write_shards(tmp_path, {"train": [make_clip("a", 3)], "test": []})
    opened = shards.open_shards(tmp_path, "train")
    opened[0]
    copy = pickle.loads(pickle.dumps(opened))
    assert_same(copy[0], opened[0])


def test_missing_shards_are_named(tmp_path):
    with pytest.raises(InputError, match=r"no clips here"):
        shards.open_shards(tmp_path, "train")
    shards.write_shards(tmp_path, {"train": [make_clip("a", 3)], "test": []})
    with pytest.raises(InputError, match="no split 'valid'"):
        shards.open_shards(tmp_path, "valid")


def test_a_clip_with_mismatched_parts_is_refused():
    good = make_clip("a", 3)
    with pytest.raises(ValueError, match="audio samples"):
        dataclasses.replace(good, audio=good.audio[:-1])
    with pytest.raises(ValueError, match="head boxes"):
        dataclasses.replace(good, head_box=good.head_box[:-1])


def test_more_shards_than_files_may_be_open_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "RECORDS_PER_SHARD", 1)
    clips = [make_clip(f"c{n}", 1) for n in range(60)]
    shards.write_shards(tmp_path, {"train": clips})
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = max(map(int, os.listdir("/dev/fd")))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (held + 30, most))
        opened = shards.open_shards(tmp_path, "train")
        assert [opened[i].clip for i in range(60)] == [f"c{n}" for n in range(60)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
