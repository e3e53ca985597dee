"""The files that there are to prepare."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from xactor_jax import recipes
from xactor_jax.errors import InputError, NoAccess, OutOfMemory
from xactor_jax.media.audio import no_access, open_media
from xactor_jax.preparation.settings import Settings
from xactor_jax.recipes.listed import Listed

_FORMAT = "7"
# Tables of its own: those of the system differ from machine to machine.
_VIDEO = (
    ".3g2 .3gp .asf .avi .divx .dv .f4v .flv .m1v .m2t .m2ts .m2v .m4v .mjpeg .mjpg .mkv .mov .mp4 "
    ".mpe .mpeg .mpg .mpv .mts .mxf .ogm .ogv .qt .rm .rmvb .ts .vob .webm .wmv .y4m"
)
_NO_VIDEO = (
    ".aac .ac3 .aif .aiff .amr .au .flac .m4a .mka .mp3 .oga .ogg .opus .wav .wma "
    ".bmp .eps .gif .heic .ico .jpeg .jpg .png .psd .svg .tif .tiff .webp "
    ".ass .c .cfg .css .csv .htm .html .ini .js .json .jsonl .lab .log .md .py .rst .rtf .sh .srt "
    ".tex .textgrid .toml .tsv .txt .vtt .xml .yaml .yml "
    ".7z .bz2 .doc .docx .gz .npy .npz .parquet .pdf .pt .pth .rar .safetensors .tar .tgz .xls "
    ".xlsx .xz .zip"
)
_LINK = "a link to a folder, which is not entered; move that folder here or prepare it by itself"


@dataclasses.dataclass(frozen=True)
class Footage:
    """A file to prepare, named by its path inside the input folder; or a clip of a recipe.

    Or a folder that cannot be looked into, so that it is told like a file that cannot be read.
    """

    folder: Path
    name: str
    listed: Listed | None = None
    closed: str = ""  # of a folder: why

    @property
    def file(self) -> str:
        """The file's path inside the input folder; clips of a recipe may share one."""
        return self.listed.path if self.listed else self.name

    @property
    def path(self) -> Path:
        return self.folder / self.file

    @property
    def between(self) -> tuple[float, float | None]:
        """Where in the file it lies, in seconds."""
        return (self.listed.start_seconds, self.listed.end_seconds) if self.listed else (0.0, None)

    def is_film(self) -> bool:
        """Whether it is one by its name, or a recipe says so; else it is opened to see.

        Raises OutOfMemory where there is too little to tell.
        """
        if self.closed:
            return False
        if self.listed or _suffix(self.name) in _VIDEO.split():
            return True  # also where it is broken: it is told then
        try:
            with open_media(self.path) as container:
                return bool(container.streams.video and container.streams.audio)
        except OutOfMemory:
            raise
        except NoAccess:
            return True  # it may be; it is told when it is prepared
        except InputError:
            return False

    @property
    def licence(self) -> str:
        """That of the recipe, where there is one."""
        return self.listed.licence if self.listed else ""

    @property
    def identity(self) -> str:
        """The folder the file lies in, or whom the recipe names."""
        if self.listed:
            return self.listed.person
        parent = Path(self.name).parent.as_posix()
        return "footage" if parent == "." else parent

    @property
    def key(self) -> str:
        """Its name as one that any folder takes."""
        return _hash(self.name)[:16]

    def signature(self, settings: Settings) -> str:
        """Changes with the file, the settings and the way clips are made."""
        try:
            stat = self.path.stat()
            state = f"{stat.st_size} {stat.st_mtime_ns}"
        except OSError:
            state = "gone"
        detector = _content(settings.faces.detector)
        return _hash(f"{state} {settings.of_a_clip()} {detector} {_FORMAT}")[:8]


@functools.cache
def _content(path: str) -> str:
    """A hash of a file that may lie elsewhere on other machines; empty where there is none."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
    except OSError:
        return ""


def _hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def find_footage(folder: Path, recipe: str = "") -> list[Footage]:
    """All files under a folder that may be videos with sound, in order of their names.

    None is opened: whether those of unknown names are films, `is_film` of each can tell. Folders
    in it that cannot be looked into are among them.

    Args:
      recipe: of the data set that the folder holds; its clips then, in their order.

    Raises:
      InputError: the folder is missing, cannot be looked into, or holds no such file.
    """
    if recipe:
        return [Footage(folder, clip.name, clip) for clip in recipes.find_clips(recipe, folder)]
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = sorted(_look_through(folder), key=lambda one: Path(one.name).parts)
    if not found:
        raise no_footage(folder)
    if all(one.closed for one in found):
        raise InputError(f"{found[0].path}: {found[0].closed}")
    return found


def _look_through(folder: Path) -> Iterator[Footage]:
    errors: list[OSError] = []
    for place, folders, names in os.walk(folder, onerror=errors.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            # It may lead anywhere, also to all of the disk, and give one person two names.
            if os.path.islink(path := Path(place, name)):
                yield Footage(folder, path.relative_to(folder).as_posix(), closed=_LINK)
        for name in names:
            path = Path(place, name)
            may_be_film = not name.startswith(".") and _suffix(name) not in _NO_VIDEO.split()
            if may_be_film and _may_be_file(path):
                yield Footage(folder, path.relative_to(folder).as_posix())
    for error in errors:
        path = Path(error.filename)
        reason = str(no_access(path, error)).removeprefix(f"{path}: ")
        yield Footage(folder, path.relative_to(folder).as_posix(), closed=f"this folder {reason}")


def _may_be_file(path: Path) -> bool:
    """Whether it is one, or cannot be reached: that is told when it is prepared."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def find_films(folder: Path) -> list[Footage]:
    """Those of `find_footage` that are films, which opens files of unknown names.

    Raises InputError as that does.
    """
    return [footage for footage in find_footage(folder) if footage.is_film()]


def no_footage(folder: Path) -> InputError:
    """The error to raise for a folder without films."""
    return InputError(f"{folder}: no video in this folder; give the folder with your clips")


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()
