"""Files that may be videos are found by their names, the same ones on every machine."""

import errno
import mimetypes
import os

import av
import numpy as np
import pytest
from media.drawn import grey_frames, write_media

from xactor_jax.errors import InputError
from xactor_jax.preparation.footage import find_footage

BROKEN = bytes(range(256)) * 40


@pytest.mark.parametrize("known", [True, False])
def test_what_is_found_does_not_depend_on_the_tables_of_the_machine(tmp_path, monkeypatch, known):
    if not known:
        monkeypatch.setattr(mimetypes, "guess_type", lambda *_, **__: (None, None))
    for name in ("a.ts", "b.3gp", "c.mkv", "d.FLV", "e.wmv", "f.m4v", "g.ogv"):
        (tmp_path / name).write_bytes(BROKEN)
    for name in ("h.wav", "i.jpg", "j.txt", "k.unknown"):
        (tmp_path / name).write_bytes(BROKEN)
    film = write_media(tmp_path / "l.mkv", grey_frames([9] * 5), audio=np.zeros(3200))
    film.rename(tmp_path / "l.film")
    with monkeypatch.context() as patch:
        patch.setattr(av, "open", None)  # which could end this process
        found = find_footage(tmp_path)
    named = ["a.ts", "b.3gp", "c.mkv", "d.FLV", "e.wmv", "f.m4v", "g.ogv"]
    assert [one.name for one in found] == [*named, "k.unknown", "l.film"]
    assert [one.name for one in found if one.is_film()] == [*named, "l.film"]


def test_a_folder_without_films_is_told(tmp_path):
    (tmp_path / "notes.txt").write_text("no film")
    with pytest.raises(InputError, match="no video in this folder"):
        find_footage(tmp_path)


def test_a_folder_that_may_not_be_looked_into_is_told(tmp_path, monkeypatch):
    def closed(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(InputError, match=f"^{tmp_path}: this folder may not be read; change"):
        find_footage(tmp_path)


def test_folders_that_are_linked_are_told_and_not_entered(tmp_path):
    inputs, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    for folder in (inputs / "anna", elsewhere):
        folder.mkdir(parents=True)
        (folder / "film.mp4").write_bytes(BROKEN)
    (inputs / "bob").symlink_to(elsewhere)
    (inputs / "anna" / "loop").symlink_to(inputs)
    (inputs / "cleo.mp4").symlink_to(elsewhere / "film.mp4")
    (tmp_path / "linked").symlink_to(inputs)
    for folder in (inputs, tmp_path / "linked"):
        found = {one.name: bool(one.closed) for one in find_footage(folder)}
        assert found == {"anna/film.mp4": False, "anna/loop": True, "bob": True, "cleo.mp4": False}
    (inputs / "cleo.mp4").unlink()
    (inputs / "anna" / "film.mp4").unlink()
    with pytest.raises(InputError, match="loop: a link to a folder, which is not entered; move"):
        find_footage(inputs)
