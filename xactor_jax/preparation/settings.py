"""Every step of the preparation: whether it runs, and its thresholds.

docs/preparation.md says what each default hits on real footage.
"""

from __future__ import annotations

import ast
import dataclasses
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

from xactor_jax.data.shards import FRAME_RATE
from xactor_jax.errors import InputError
from xactor_jax.media.audio import MOST_PIXELS


def _within(default: float, least: float, most: float = math.inf) -> Any:
    """A number from `least` to `most`."""
    return dataclasses.field(default=default, metadata={"least": least, "most": most})


def _one_of(*words: str) -> Any:
    """One of some words, by default the first."""
    return dataclasses.field(default=words[0], metadata={"words": words})


@dataclasses.dataclass(frozen=True)
class Probe:
    """What the file says of itself, before anything is decoded."""

    hdr: bool = True  # refuse pictures in PQ, which would come out grey
    longest_side: int = _within(1920, 64, 8192)  # pixels; larger pictures are reduced
    largest_pixels: int = _within(MOST_PIXELS, 1, MOST_PIXELS)  # refuse pictures that have more
    mismatch_seconds: float = _within(2.0, 0)  # refuse sound and picture that differ more in length


@dataclasses.dataclass(frozen=True)
class Shots:
    """Where one scene ends and the next begins; changes are of a thumbnail's levels, 0 to 255."""

    enabled: bool = True
    change: float = _within(40.0, 0)  # mean change from one frame to the next that always is a cut
    sudden_change: float = _within(8.0, 0)  # a cut if also `sudden` times what is usual here
    sudden: float = _within(5.0, 0)


@dataclasses.dataclass(frozen=True)
class Faces:
    """Tracks of faces, and which stretches of them become clips."""

    detector: str = ""  # a face_detection_short_range.tflite; empty: OpenCV's cascades
    jump: float = _within(0.25, 0.01)  # face sides from one frame to the next that end a track
    gap: int = _within(25, 0)  # frames without the face that end a track
    edge: int = _within(10, 0)  # frames without the face that are bridged at the ends of a shot
    shortest_seconds: float = _within(1.0, 0.4)  # loudness is defined from 0.4 s on
    longest_seconds: float = _within(120.0, 0.4)  # longer stretches are cut into equal clips
    background: float = _within(0.5, 0, 1)  # faces smaller, against the largest, are left out
    most: int = _within(8, 1)  # refuse stretches with more faces at one time


@dataclasses.dataclass(frozen=True)
class Speaker:
    """Which of several faces speaks."""

    enabled: bool = True  # else every face becomes a clip
    margin: float = _within(0.15, 0, 2)  # by which the speaker agrees better with the sound
    least: float = _within(0.35, -2, 2)  # the agreement that a speaker must have


@dataclasses.dataclass(frozen=True)
class Sound:
    """Loudness, silence and music."""

    normalise: bool = True
    loudness: float = _within(-23.0, -70, 0)  # LUFS (EBU R 128)
    peak: float = _within(-1.0, -60, 0)  # dB of full scale that nothing exceeds
    quietest: float = _within(-45.0, -200, 0)  # LUFS before it is normalised; refuse quieter clips
    silence: float = _within(0.8, 0)  # refuse clips with a larger share of silent frames
    music: float = _within(0.5, 0)  # refuse clips whose sound is music by more than this


@dataclasses.dataclass(frozen=True)
class Sync:
    """The offset between sound and mouth."""

    enabled: bool = True
    shortest_seconds: float = _within(10.0, 0)  # what can be measured by itself
    pooled: bool = True  # shorter clips are taken together, a folder at a time, and mended alike
    most: int = _within(15, 4, 250)  # frames that are searched to either side
    peak: float = _within(0.35, -2, 2)  # of the agreement, for the offset to be sure
    margin: float = _within(0.08, 0, 2)  # of that peak above the rest, for the offset to be sure
    smallest: int = _within(2, 0)  # offsets from this many frames on are mended
    unsure: bool = True  # refuse clips whose offset is not sure


FOLDS = 5  # in which the mouth's agreement with the sound is learnt and measured (sync.py)


def fewest_frames(most: int) -> int:
    """How many frames it takes to look for an offset of up to `most` frames to either side."""
    return 2 * most + 10 * FOLDS


@dataclasses.dataclass(frozen=True)
class Quality:
    """The picture. A threshold of 0 (of shares and `second_face` 1, of `yaw` 180) is no check."""

    face_pixels: float = _within(48.0, 0)  # refuse smaller faces
    blur: float = _within(20.0, 0)  # refuse faces with a smaller variance of the Laplacian
    dark: float = _within(18.0, 0)  # refuse faces of a smaller mean level, 0 to 255
    contrast: float = _within(12.0, 0)  # refuse faces with a smaller deviation of levels
    static: float = _within(0.5, 0)  # refuse faces that change less from frame to frame, in levels
    occluded: float = _within(0.1, 0)  # refuse a larger share of frames unlike the clip's own face
    turned: float = _within(0.1, 0)  # refuse a larger share of frames without a frontal face
    yaw: float = _within(40.0, 0)  # degrees; refuse heads turned further in a tenth of the frames
    overlay: float = _within(0.35, 0)  # refuse windows fuller of lasting strokes (writing, marks)
    second_face: float = _within(0.4, 0)  # refuse another face this large against the main one


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Clips that are another one, encoded or trimmed differently."""

    enabled: bool = True
    bit_errors: float = _within(0.25, 0, 1)  # share of the sound's fingerprint that may differ
    picture: float = _within(0.9, -1, 1)  # correlation that the mean pictures must have


@dataclasses.dataclass(frozen=True)
class Splits:
    """Which clips are for training, validation and testing."""

    test: float = _within(0.06, 0, 1)
    validation: float = _within(0.04, 0, 1)
    seed: int = 0
    by: str = _one_of("auto", "speaker", "clip")  # auto: by speaker from `speakers` on
    speakers: int = _within(10, 1)


@dataclasses.dataclass(frozen=True)
class Work:
    """How files are worked on; it decides nothing of the clips."""

    hours: float = _within(12.0, 0.01, 500)  # files that take longer wait for the next run


@dataclasses.dataclass(frozen=True)
class Settings:
    """All steps in their order."""

    size: int = _within(256, 32, 2048)  # side of the view in pixels
    probe: Probe = Probe()
    shots: Shots = Shots()
    faces: Faces = Faces()
    speaker: Speaker = Speaker()
    sound: Sound = Sound()
    sync: Sync = Sync()
    quality: Quality = Quality()
    duplicates: Duplicates = Duplicates()
    splits: Splits = Splits()
    work: Work = Work()

    def of_a_clip(self) -> Settings:
        """Only what decides how a file becomes clips; the rest, and names of files, at defaults."""
        faces = dataclasses.replace(self.faces, detector="")
        return dataclasses.replace(
            self, faces=faces, duplicates=Duplicates(), splits=Splits(), work=Work()
        )

    def absolute(self) -> Settings:
        """The same on machines with other working folders."""
        if not self.faces.detector:
            return self
        detector = os.path.abspath(self.faces.detector)
        return dataclasses.replace(self, faces=dataclasses.replace(self.faces, detector=detector))


def changed(settings: Settings, changes: Iterable[str]) -> Settings:
    """Settings with entries such as "quality.blur=10" or "speaker.enabled=False" changed.

    Raises InputError for a field that there is not, a value of another kind or out of its range, or
    values that do not go together.
    """
    for change in changes:
        name, equals, text = change.partition("=")
        try:
            if not equals:
                raise AttributeError
            settings = _replaced(settings, name.split("."), text)
        except (AttributeError, TypeError):
            raise InputError(
                f"--set {change}: no such setting; xactor_jax/preparation/settings.py lists them"
            ) from None
        except ValueError as error:
            raise InputError(f"--set {change}: {error}") from None
    _check_together(settings)
    return settings


def _replaced(part: Any, names: list[str], text: str) -> Any:
    old = getattr(part, names[0])
    if len(names) > 1:
        new = _replaced(old, names[1:], text)
    elif dataclasses.is_dataclass(old):
        raise AttributeError(names[0])
    else:
        new = _parsed(text, type(old))
        (field,) = (one for one in dataclasses.fields(part) if one.name == names[0])
        _check(new, field.metadata)
    return dataclasses.replace(part, **{names[0]: new})


def _parsed(text: str, kind: type) -> Any:
    if kind is str:
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"{text!r} does not fit; give a value like the default's")
    return value


def _check(value: Any, allowed: Mapping[str, Any]) -> None:
    """Raise ValueError for a value that its field does not allow."""
    words = allowed.get("words")
    if words and value not in words:
        raise ValueError(f"give one of {', '.join(words)}")
    if "least" not in allowed:
        return
    least, most = allowed["least"], allowed["most"]
    if not (math.isfinite(value) and least <= value <= most):
        raise ValueError(f"give {least:g} " + (f"to {most:.9g}" if most < math.inf else "or more"))


def _check_together(settings: Settings) -> None:
    least = fewest_frames(settings.sync.most) / FRAME_RATE
    if settings.sync.enabled and settings.sync.shortest_seconds < least:
        raise InputError(
            f"--set sync.shortest_seconds={settings.sync.shortest_seconds:g}: give {least:g} or "
            f"more with sync.most={settings.sync.most}"
        )
    if settings.faces.longest_seconds < settings.faces.shortest_seconds:
        raise InputError(
            f"--set faces.longest_seconds={settings.faces.longest_seconds:g}: give "
            f"faces.shortest_seconds={settings.faces.shortest_seconds:g} or more"
        )
    if settings.size % 2:
        raise InputError(f"--set size={settings.size}: give an even number")
