"""Motion latents and audio features of clips, made once; and windows of them to train on."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from jaxtyping import Float

from xactor_jax.data.audio_features import Hearing, audio_features
from xactor_jax.data.direction import WIDTH, direction_of, thinned
from xactor_jax.data.shards import Clip, Shards, audio_to_float, decode_frames, open_shards
from xactor_jax.data.tracks import Track, Tracks, read_index, shards_digest, write_tracks
from xactor_jax.data.transforms import PLAIN, driving_picture
from xactor_jax.data.windows import SOURCES, MixedWindows
from xactor_jax.errors import InputError
from xactor_jax.progress import progress

Encode = Callable[[np.ndarray], np.ndarray]

READ_THREADS = 8  # that decode clips ahead of their encoding
_FORMAT = 3  # of the features


def driving_crops(clip: Clip, size: int) -> np.ndarray:
    """The crops (t, size, size, 3) that the motion encoder sees of a whole segment."""
    views, side = decode_frames(clip, range(len(clip))), float(np.median(clip.head_box[:, 2]))
    rng = np.random.default_rng(0)
    pairs = zip(views, clip.head_box, strict=True)
    return np.stack([driving_picture(v, box, side, size, PLAIN, rng) for v, box in pairs])


def _segments(shards: Shards) -> dict[str, list[int]]:
    """The segments of each clip; of a motion with several renderings, the first."""
    segments: dict[str, list[int]] = defaultdict(list)
    motions: dict[str, str] = {}
    for i in range(len(shards)):
        header = shards.header(i)
        if motions.setdefault(header.motion, header.clip) == header.clip:
            segments[header.clip].append(i)
    return segments


def encode_clips(
    folder: str | Path, split: str, encode: Encode, crop_size: int, hearing: Hearing
) -> Iterator[Track]:
    """Encode every clip of a folder's split; of a motion with several renderings, the first."""
    shards = open_shards(folder, split)
    segments = _segments(shards)

    def read(indices: Sequence[int]) -> tuple[list[Clip], list[np.ndarray]]:
        parts = sorted((shards[i] for i in indices), key=lambda part: part.start)
        return parts, [driving_crops(part, crop_size) for part in parts]

    # Threads, since decoding takes longer than encoding does on an accelerator.
    reading = grain.MapDataset.source(list(segments.values())).map(read)
    ahead = grain.ReadOptions(num_threads=READ_THREADS, prefetch_buffer_size=READ_THREADS)
    with progress(f"encoding {folder} ({split})", len(segments), "clips") as advance:
        for parts, crops in reading.to_iter_dataset(ahead):
            yield _encode_clip(parts, crops, encode, hearing)
            advance(1)


def _encode_clip(
    parts: Sequence[Clip], crops: Sequence[np.ndarray], encode: Encode, hearing: Hearing
) -> Track:
    latents = np.concatenate([encode(part) for part in crops])
    audio = audio_to_float(np.concatenate([part.audio for part in parts]))
    first = parts[0]
    features = audio_features(audio, len(latents), hearing)
    direction = np.concatenate([direction_of(part) for part in parts])
    return Track(first.clip, first.source, first.identity, latents, features, direction)


def provenance(
    folder: Path, split: str, encoder: str, crop_size: int, hearing: Hearing
) -> dict[str, Any]:
    """All that features depend on: they are stale where any of it has changed.

    Args:
      encoder: what tells this encoder's weights from others.
    """
    return {
        "format": _FORMAT,
        "encoder": encoder,
        "crop_size": crop_size,
        "hearing": repr(hearing),
        "shards": shards_digest(folder),
        "split": split,
    }


def features_folder(folder: str | Path, split: str) -> Path:
    """Where features are kept beside the shards of a folder."""
    return Path(folder) / f"features-{split}"


def write_features(
    folder: str | Path,
    split: str,
    to: Path,
    made_by: Mapping[str, Any],
    encode: Encode,
    crop_size: int,
    hearing: Hearing,
) -> None:
    """Encode every clip of a folder's split into a folder of tracks, unless that is done."""
    if to.is_dir() and read_index(to)["made_by"] == made_by:
        return
    shards = open_shards(folder, split)
    chosen = [i for indices in _segments(shards).values() for i in indices]
    frames = int(shards.lengths[chosen].sum())
    write_tracks(to, encode_clips(folder, split, encode, crop_size, hearing), frames, made_by)


def cached_tracks(
    cache: str,
    encoder: str,
    chosen: Sequence[tuple[str, str]],
    encode: Encode,
    crop_size: int,
    hearing: Hearing,
) -> Tracks:
    """Tracks of folders' splits: those beside the shards, or encoded once and kept in `cache`.

    Args:
      encoder: what tells this encoder's weights from others.
      chosen: folders, each with the split that is wanted of it.

    Raises InputError where features lie beside the shards that another encoder, other ears or
    other shards have made.
    """
    places = []
    for folder, split in chosen:
        wanted = provenance(Path(folder), split, encoder, crop_size, hearing)
        place = features_folder(folder, split)
        if place.is_dir():
            _check_fresh(place, wanted)
        else:
            # Two folders may share their last name.
            whole = repr((str(Path(folder).resolve()), wanted)).encode()
            digest = hashlib.sha256(whole).hexdigest()[:12]
            place = Path(cache) / f"{Path(folder).resolve().name}-{split}-{digest}"
            write_features(folder, split, place, wanted, encode, crop_size, hearing)
        places.append(place)
    return Tracks(places)


def _check_fresh(place: Path, wanted: Mapping[str, Any]) -> None:
    found = read_index(place)["made_by"]
    if other := [name for name, value in wanted.items() if found.get(name) != value]:
        raise InputError(
            f"{place}: made with another {' and '.join(other)} than this training's; make it again "
            f"with python -m xactor_jax.data.features --folders={place.parent} --renderer=FILE, "
            "or delete it"
        )


class MotionExamples:
    """Windows of tracks: `[i]` is a small index, `load` cuts it.

    Args:
      frames: length of a window.
      audio_window: frames of audio added before and after.
      stride: frames between the starts of windows; each start is drawn from within.
      band_shift: mel bands by which the voice is moved up or down, at most, against overfitting to
        few voices.
      gain: change of the features' level, at most.
      footage_share: of the windows, where there are both footage and actors. Left to their numbers,
        long takes of actors have many more windows than short clips.
      other_clip: share of windows whose portrait is from any clip of the same person, not from the
        window's own, where it gives the mood away.
      drop_direction, drop_kind: how seldom the performer is told anything, and each kind
        (data/direction.py, `thinned`).
    """

    def __init__(
        self,
        tracks: Sequence[Track],
        frames: int,
        audio_window: int,
        *,
        stride: int,
        band_shift: float = 0.0,
        gain: float = 0.0,
        bands: int = 40,
        footage_share: float = 0.5,
        other_clip: float = 0.0,
        drop_direction: float = 0.3,
        drop_kind: float = 0.5,
    ):
        self.tracks, self.frames, self.audio_window = tracks, frames, audio_window
        clips = {s: [i for i, t in enumerate(tracks) if t.source == s] for s in SOURCES}
        lengths = {s: [len(tracks[i].latents) for i in chosen] for s, chosen in clips.items()}
        self.windows = MixedWindows(clips, lengths, frames, stride, footage_share)
        self.stride, self.band_shift, self.gain, self.bands = stride, band_shift, gain, bands
        self.other_clip = other_clip
        self.drop_direction, self.drop_kind = drop_direction, drop_kind
        self.of_person: dict[tuple[str, str], list[int]] = {}
        for i, track in enumerate(tracks):
            self.of_person.setdefault((track.source, track.identity), []).append(i)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, int]:
        window = self.windows[index]
        return {"clip": window["clip"], "start": window["start"]}

    def load(self, element: dict[str, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One window.

        latents (t,d); audio (t+2w,f), from w frames before to w after; audio_known (t+2w,): False
        beyond the clip's ends; direction (t,k): what is told; reference (d,): the latent of any
        frame of the clip, or of another clip of the person.
        """
        track, w = self.tracks[element["clip"]], self.audio_window
        length = len(track.latents)
        start = min(element["start"] + int(rng.integers(self.stride)), length - self.frames)
        places = np.arange(start - w, start + self.frames + w)
        known = (places >= 0) & (places < length)
        audio = self._changed(track.audio[np.clip(places, 0, length - 1)], rng)
        known_of = track.direction[start : start + self.frames]
        direction = thinned(known_of, rng, self.drop_direction, self.drop_kind)
        return {
            "latents": track.latents[start : start + self.frames].astype(np.float32),
            "audio": (audio * known[:, None]).astype(np.float32),
            "audio_known": known,
            "direction": direction,
            "reference": self._portrait(element["clip"], rng).astype(np.float32),
        }

    def _portrait(self, clip: int, rng: np.random.Generator) -> Float[np.ndarray, " d"]:
        track = self.tracks[clip]
        if self.other_clip and rng.random() < self.other_clip:
            clips = self.of_person[track.source, track.identity]
            track = self.tracks[clips[int(rng.integers(len(clips)))]]
        return track.latents[int(rng.integers(len(track.latents)))]

    def _changed(
        self, audio: Float[np.ndarray, "a f"], rng: np.random.Generator
    ) -> Float[np.ndarray, "a f"]:
        """The same speech in another voice: bands shifted by a fraction, another level."""
        if not self.band_shift and not self.gain:
            return audio
        shift = self.band_shift * rng.uniform(-1, 1)
        columns = audio.reshape(-1, self.bands)
        source = np.clip(np.arange(self.bands) + shift, 0, self.bands - 1)
        low = np.floor(source).astype(int)
        high, part = np.minimum(low + 1, self.bands - 1), (source - low).astype(np.float32)
        moved = columns[:, low] * (1 - part) + columns[:, high] * part
        return moved.reshape(audio.shape) + np.float32(self.gain * rng.uniform(-1, 1))


def example_shapes(
    frames: int, audio_window: int, latent: int, audio: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of what `MotionExamples.load` returns, without any data."""

    def numbers(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, np.float32)

    heard = frames + 2 * audio_window
    return {
        "latents": numbers(frames, latent),
        "audio": numbers(heard, audio),
        "audio_known": jax.ShapeDtypeStruct((heard,), np.bool_),
        "direction": numbers(frames, WIDTH),
        "reference": numbers(latent),
    }
