"""What is done stays done; what broke off leaves nothing behind."""

import os

import numpy as np
import pytest

from xactor_jax.data.shards import Clip, encode_frame
from xactor_jax.errors import InputError, NoAccess, OutOfMemory
from xactor_jax.preparation.clips import Prepared, Refused
from xactor_jax.preparation.footage import Footage
from xactor_jax.preparation.settings import Settings, changed
from xactor_jax.preparation.staging import Staging
from xactor_jax.preparation.workers import stage

SIZE = 32


def clip(name: str, frames: int = 30) -> Prepared:
    pictures = [np.full((SIZE, SIZE, 3), 8 * t, np.uint8) for t in range(frames)]
    made = Clip(
        clip=name,
        source="footage",
        identity="anna",
        size=SIZE,
        frames=[encode_frame(picture) for picture in pictures],
        head_box=np.full((frames, 3), 0.5, np.float32),
        audio=np.arange(frames * 640).astype(np.int16),
    )
    bits, picture = np.arange(frames, dtype=np.uint16), np.zeros((32, 32), np.uint8)
    return Prepared(made, 1.0, 2.2, -3, {"blur": 40.0}, b"jpeg", bits, picture)


@pytest.fixture
def staging(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / "a.mp4").write_bytes(b"film")
    return Staging(tmp_path / "clips", Settings(size=SIZE)), Footage(tmp_path, "anna/a.mp4")


def files(staging: Staging) -> list[str]:
    return sorted(path.suffix for path in staging.folder.rglob("*") if path.is_file())


def test_clips_come_back_as_they_were(staging):
    staging, footage = staging
    assert staging.outcome(footage) is None
    staging.keep(footage, iter([clip("anna/a.mp4"), Refused("dark", 5.0, 6.0), clip("anna/a@9")]))
    outcome = staging.outcome(footage)
    assert [row["clip"] for row in outcome["clips"]] == ["anna/a.mp4", "anna/a@9"]
    assert outcome["refused"][0]["reason"] == "dark"
    row, made = outcome["clips"][0], clip("anna/a.mp4")
    assert (row["start_seconds"], row["end_seconds"], row["offset_frames"]) == (1.0, 2.2, -3)
    loaded = staging.load(footage, row)
    assert loaded.frames == made.clip.frames and loaded.identity == "anna"
    np.testing.assert_array_equal(loaded.audio, made.clip.audio)
    np.testing.assert_array_equal(staging.fingerprint(row)[0], made.fingerprint)


def test_a_shift_moves_the_sound_to_its_frames(staging):
    staging, footage = staging
    staging.keep(footage, iter([clip("anna/a.mp4")]))
    (row,) = staging.outcome(footage)["clips"]
    whole = staging.load(footage, row)
    late, early = (staging.load(footage, row | {"shift": shift}) for shift in (4, -4))
    # Late sound: frame 0 is heard 4 frames later.
    assert late.frames == whole.frames[:-4]
    np.testing.assert_array_equal(late.audio, whole.audio[4 * 640 :])
    assert early.frames == whole.frames[4:]
    np.testing.assert_array_equal(early.audio, whole.audio[: -4 * 640])


def test_a_file_that_broke_off_is_done_again_from_its_start(staging):
    staging, footage = staging

    def killed():
        yield clip("anna/a.mp4")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        staging.keep(footage, killed())
    assert staging.outcome(footage) is None
    staging.keep(footage, iter([clip("anna/a.mp4")]))
    assert len(staging.outcome(footage)["clips"]) == 1 and files(staging) == [".json", ".npz"]


def test_what_a_kill_left_half_written_goes_and_what_another_machine_writes_stays(staging):
    staging, footage = staging
    folder = staging.outcome_path(footage).parent
    folder.mkdir()
    for name in (".left.npz.partial", ".being_written.npz.partial"):
        (folder / name).write_bytes(b"half")
    os.utime(folder / ".left.npz.partial", (0, 0))
    staging.keep(footage, iter([]))
    assert [path.name for path in folder.glob(".*")] == [".being_written.npz.partial"]


@pytest.mark.parametrize(
    "error",
    [InputError("bad"), ValueError("odd"), MemoryError(), OutOfMemory("little"), NoAccess("shut")],
)
def test_errors_are_told_of_the_rest_of_the_file(staging, error):
    staging, footage = staging

    def breaks():
        yield clip("anna/a.mp4")
        raise error

    staging.keep(footage, breaks())
    outcome = staging.outcome(footage)
    assert len(outcome["clips"]) == 1
    assert str(error) in outcome["refused"][0]["reason"]
    # Another run may have more memory or be let in, but will not read a bad file any better.
    assert staging.holds(footage) == (not isinstance(error, MemoryError | OutOfMemory | NoAccess))


def test_other_settings_and_other_files_are_prepared_anew(staging):
    staging, footage = staging
    staging.keep(footage, iter([clip("anna/a.mp4")]))
    other = Staging(staging.folder, changed(staging.settings, ["quality.dark=3"]))
    assert other.outcome(footage) is None
    footage.path.write_bytes(b"another film")
    assert staging.outcome(footage) is None
    staging.keep(footage, iter([]))
    assert files(staging) == [".json"]


@pytest.mark.parametrize("share", [0.0, 0.5, None])
def test_clips_that_are_damaged_are_made_anew(staging, share):
    staging, footage = staging
    staging.keep(footage, iter([clip("anna/a.mp4")]))
    assert staging.holds(footage)
    (row,) = staging.outcome(footage)["clips"]
    path = staging.folder / row["file"]
    data = path.read_bytes()
    path.write_bytes(bytes(len(data)) if share is None else data[: int(share * len(data))])
    for read in (staging.fingerprint, lambda row: staging.load(footage, row)):
        with pytest.raises(InputError, match=f"^{path}: damaged; run again"):
            read(row)
    assert not staging.holds(footage) and staging.outcome(footage) is None


def test_clips_are_those_of_a_detector_wherever_it_lies(staging, tmp_path, monkeypatch):
    staging, footage = staging
    for name, data in (("one", b"network"), ("same", b"network"), ("other", b"network 2")):
        (tmp_path / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    with_detector = [
        Staging(staging.folder, changed(staging.settings, [f"faces.detector={name}"]).absolute())
        for name in ("one", "same", "other")
    ]
    assert with_detector[0].settings.faces.detector == str(tmp_path / "one")
    with_detector[0].keep(footage, iter([]))
    assert [one.holds(footage) for one in with_detector] == [True, True, False]
    assert not staging.holds(footage)


def test_a_file_that_is_gone_is_told(staging):
    staging, footage = staging
    footage.path.unlink()
    stage(footage, staging)
    assert "no such file" in staging.outcome(footage)["refused"][0]["reason"]


def test_two_who_work_on_one_file_do_not_spoil_it(staging):
    """The one that is last decides, and what its outcome lists is what it made."""
    staging, footage = staging

    def slow():
        yield clip("anna/a.mp4", 30)
        staging.keep(footage, iter([clip("anna/a.mp4", 20), Refused("dark")]))
        yield clip("anna/a@9", 30)

    staging.keep(footage, slow())
    outcome = staging.outcome(footage)
    assert [row["frames"] for row in outcome["clips"]] == [30, 30] and not outcome["refused"]
    for row in outcome["clips"]:
        assert len(staging.load(footage, row)) == row["frames"]
