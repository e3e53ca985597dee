"""Motion latents and audio features of whole clips: what the motion transformer is trained on."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.progress import track

from xactor_jax.data.audio_features import MelConfig, audio_features
from xactor_jax.data.shards import Clip, Shards, audio_to_float, decode_frames, open_shards
from xactor_jax.data.transforms import PLAIN, driving_picture
from xactor_jax.data.windows import Windows

Encode = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
    """One clip: a motion latent and a row of audio features a frame."""

    clip: str
    source: str
    identity: str
    latents: Float[np.ndarray, "t d"]
    audio: Float[np.ndarray, "t f"]


def driving_crops(clip: Clip, size: int) -> np.ndarray:
    """The crops (t, size, size, 3) that the motion encoder sees of a whole segment."""
    views, side = decode_frames(clip, range(len(clip))), float(np.median(clip.head_box[:, 2]))
    rng = np.random.default_rng(0)
    pairs = zip(views, clip.head_box, strict=True)
    return np.stack([driving_picture(v, box, side, size, PLAIN, rng) for v, box in pairs])


def encode_clips(
    folder: str, split: str, encode: Encode, crop_size: int, mel: MelConfig
) -> Iterator[Track]:
    """Encode every clip of a folder's split; of a motion with several renderings, the first."""
    shards = open_shards(folder, split)
    segments: dict[str, list[int]] = defaultdict(list)
    motions: dict[str, str] = {}
    for i in range(len(shards)):
        header = shards.header(i)
        if motions.setdefault(header.motion, header.clip) == header.clip:
            segments[header.clip].append(i)
    console = Console(stderr=True)
    bar = track(
        segments.values(),
        f"encoding {folder} ({split})",
        console=console,
        disable=not console.is_terminal,
    )
    for indices in bar:
        yield _encode_clip(shards, indices, encode, crop_size, mel)


def _encode_clip(
    shards: Shards, indices: Sequence[int], encode: Encode, crop_size: int, mel: MelConfig
) -> Track:
    parts = sorted((shards[i] for i in indices), key=lambda part: part.start)
    latents = np.concatenate([encode(driving_crops(part, crop_size)) for part in parts])
    audio = audio_to_float(np.concatenate([part.audio for part in parts]))
    first = parts[0]
    features = audio_features(audio, len(latents), mel)
    return Track(first.clip, first.source, first.identity, latents, features)


def cached_tracks(
    cache: str,
    weights: Path,
    folders: Sequence[str],
    split: str,
    encode: Encode,
    crop_size: int,
    mel: MelConfig,
) -> list[Track]:
    """Tracks of all folders, encoded once for each weights file and kept in the folder `cache`."""
    digest = hashlib.sha256(Path(weights).read_bytes() + repr(mel).encode()).hexdigest()[:12]
    tracks = []
    for folder in folders:
        path = Path(cache) / f"{Path(folder).name}-{split}-{digest}.npz"
        if not path.is_file():
            found = list(encode_clips(folder, split, encode, crop_size, mel))
            _save(path, found)
        tracks += _load(path)
    return tracks


def _save(path: Path, tracks: Sequence[Track]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished.npz")
    np.savez(
        unfinished,
        names=np.array([[t.clip, t.source, t.identity] for t in tracks]).reshape(-1, 3),
        lengths=np.array([len(t.latents) for t in tracks]),
        latents=np.concatenate([t.latents for t in tracks]) if tracks else np.zeros((0, 1)),
        audio=np.concatenate([t.audio for t in tracks]) if tracks else np.zeros((0, 1)),
    )
    os.replace(unfinished, path)


def _load(path: Path) -> list[Track]:
    with np.load(path) as file:
        names, lengths = file["names"], file["lengths"]
        edges = np.cumsum(lengths)[:-1]
        latents, audio = np.split(file["latents"], edges), np.split(file["audio"], edges)
    return [
        Track(*map(str, name), one, heard)
        for name, one, heard in zip(names, latents, audio, strict=True)
    ]


class MotionExamples:
    """Windows of tracks: `[i]` is a small index, `load` cuts it."""

    def __init__(
        self, tracks: Sequence[Track], frames: int, audio_window: int, stride: int, shares: dict
    ):
        self.tracks, self.frames, self.audio_window = list(tracks), frames, audio_window
        self.windows = Windows([len(t.latents) for t in tracks], frames, stride)
        self.stride = stride
        self.shift = shares.get("band_shift", 0.0)
        self.gain = shares.get("gain", 0.0)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, i: int) -> dict[str, int]:
        window = self.windows[i]
        return {"clip": int(window["clip"]), "start": int(window["start"])}

    def load(self, element: dict[str, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """latents (t,d), audio (t+2w,f) from w frames before, audio_known (t+2w,), reference (d,)."""
        track, w = self.tracks[element["clip"]], self.audio_window
        length = len(track.latents)
        start = min(element["start"] + int(rng.integers(self.stride)), length - self.frames)
        places = np.arange(start - w, start + self.frames + w)
        known = (places >= 0) & (places < length)
        audio = track.audio[np.clip(places, 0, length - 1)] * known[:, None]
        return {
            "latents": track.latents[start : start + self.frames].astype(np.float32),
            "audio": audio.astype(np.float32),
            "audio_known": known,
            "reference": track.latents[int(rng.integers(length))].astype(np.float32),
        }
