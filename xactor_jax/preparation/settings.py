"""Every step of the preparation: whether it runs, and its thresholds.

docs/preparation.md says what each default hits on real footage.
"""

from __future__ import annotations

import ast
import dataclasses
import os
from collections.abc import Iterable
from typing import Any

from xactor_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Probe:
    """What the file says of itself, before anything is decoded."""

    hdr: bool = True  # refuse pictures in PQ, which would come out grey
    longest_side: int = 1920  # pixels; larger pictures are reduced
    largest_pixels: int = 8192 * 8192  # refuse frames that claim more
    mismatch_seconds: float = 2.0  # refuse sound and picture that differ more in length


@dataclasses.dataclass(frozen=True)
class Shots:
    """Where one scene ends and the next begins; changes are of a thumbnail's levels, 0 to 255."""

    enabled: bool = True
    change: float = 40.0  # mean change from one frame to the next that always is a cut
    sudden_change: float = 8.0  # a cut when it is also `sudden` times what is usual here
    sudden: float = 5.0


@dataclasses.dataclass(frozen=True)
class Faces:
    """Tracks of faces, and which stretches of them become clips."""

    detector: str = ""  # a face_detection_short_range.tflite; empty: OpenCV's cascades
    jump: float = 0.25  # face sides from one frame to the next that end a track
    gap: int = 25  # frames without the face that end a track
    edge: int = 10  # frames without the face that are bridged at the ends of a shot
    shortest_seconds: float = 1.0
    longest_seconds: float = 120.0  # longer stretches are cut into equal clips
    background: float = 0.5  # faces smaller than this, against the largest, are not asked for


@dataclasses.dataclass(frozen=True)
class Speaker:
    """Which of several faces speaks."""

    enabled: bool = True  # else every face becomes a clip
    margin: float = 0.15  # by how much the speaker's agreement with the sound must be higher
    least: float = 0.35  # the agreement that a speaker must have


@dataclasses.dataclass(frozen=True)
class Sound:
    """Loudness, silence and music."""

    normalise: bool = True
    loudness: float = -23.0  # LUFS (EBU R 128)
    peak: float = -1.0  # dB of full scale that nothing exceeds
    quietest: float = -45.0  # LUFS before it is normalised; refuse what is quieter
    silence: float = 0.8  # refuse clips with a larger share of silent frames
    music: float = 0.5  # refuse clips whose sound is music by more than this


@dataclasses.dataclass(frozen=True)
class Sync:
    """The offset between sound and mouth."""

    enabled: bool = True
    shortest_seconds: float = 10.0  # what can be measured by itself
    pooled: bool = True  # shorter clips are taken together, a folder at a time, and mended alike
    most: int = 15  # frames that are searched to either side
    peak: float = 0.35  # of the agreement, for the offset to be sure
    margin: float = 0.08  # of that peak above the rest, for the offset to be sure
    smallest: int = 2  # offsets from this many frames on are mended
    unsure: bool = True  # refuse clips whose offset is not sure


@dataclasses.dataclass(frozen=True)
class Quality:
    """The picture. A threshold of 0 (of shares and `second_face` 1, of `yaw` 180) is no check."""

    face_pixels: float = 48.0  # refuse smaller faces
    blur: float = 20.0  # refuse faces with a smaller variance of the Laplacian
    dark: float = 18.0  # refuse faces of a smaller mean level, 0 to 255
    contrast: float = 12.0  # refuse faces with a smaller deviation of levels
    static: float = 0.5  # refuse faces that change less from frame to frame, in levels
    occluded: float = 0.1  # refuse clips with a larger share of frames unlike the clip's own face
    turned: float = 0.1  # refuse clips with a larger share of frames without a frontal face
    yaw: float = 40.0  # refuse heads turned further to a side in a tenth of the frames, degrees
    overlay: float = 0.35  # refuse views with a window fuller of lasting strokes (writing, marks)
    second_face: float = 0.4  # refuse views that hold another face this large against the main one


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Clips that are another one, encoded or trimmed differently."""

    enabled: bool = True
    bit_errors: float = 0.25  # share of the sound's fingerprint that may differ
    picture: float = 0.9  # correlation that the mean pictures must have


@dataclasses.dataclass(frozen=True)
class Splits:
    """Which clips are for training, validation and testing."""

    test: float = 0.06
    validation: float = 0.04
    seed: int = 0
    by: str = "auto"  # "speaker", "clip", or by speaker from `speakers` folders on
    speakers: int = 10


@dataclasses.dataclass(frozen=True)
class Work:
    """How files are worked on; it decides nothing of the clips."""

    hours: float = 12.0  # a file that takes longer is given up until the next run


@dataclasses.dataclass(frozen=True)
class Settings:
    """All steps in their order."""

    size: int = 256  # side of the view in pixels
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

    Raises InputError for a field that there is not, or a value of another kind.
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
        except (ValueError, SyntaxError):
            raise InputError(f"--set {change}: {text!r} does not fit {name}") from None
    return settings


def _replaced(part: Any, names: list[str], text: str) -> Any:
    old = getattr(part, names[0])
    if len(names) > 1:
        new = _replaced(old, names[1:], text)
    elif dataclasses.is_dataclass(old):
        raise AttributeError(names[0])
    else:
        new = _parsed(text, type(old))
    return dataclasses.replace(part, **{names[0]: new})


def _parsed(text: str, kind: type) -> Any:
    if kind is str:
        return text
    value = ast.literal_eval(text)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise ValueError(text)
    return value
