"""Every threshold is in one place and can be changed in one way."""

import pytest

from xactor_jax.errors import InputError
from xactor_jax.preparation.settings import Settings, changed


def test_fields_are_changed_by_name():
    settings = changed(Settings(), ["quality.blur=3", "speaker.enabled=False", "splits.by=clip"])
    assert settings.quality.blur == 3.0 and isinstance(settings.quality.blur, float)
    assert settings.speaker.enabled is False and settings.splits.by == "clip"
    assert settings.sound == Settings().sound
    assert changed(Settings(), ["size=128"]).size == 128


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("quality.blurr=3", "no such setting"),
        ("nothing=3", "no such setting"),
        ("quality=3", "no such setting"),
        ("quality.blur", "no such setting"),
        ("quality.blur.more=3", "no such setting"),
        ("quality.blur=many", "does not fit"),
        ("quality.blur=True", "does not fit"),
        ("sync.most=1.5", "does not fit"),
        ("speaker.enabled=1", "does not fit"),
        ("quality.blur=", "does not fit"),
    ],
)
def test_mistakes_are_told(change, message):
    with pytest.raises(InputError, match=message):
        changed(Settings(), [change])


def test_what_only_sorts_clips_does_not_make_them_anew():
    changes = ["splits.seed=4", "duplicates.enabled=False"]
    assert changed(Settings(), changes).of_a_clip() == Settings().of_a_clip()
    assert changed(Settings(), ["shots.change=9"]).of_a_clip() != Settings().of_a_clip()
