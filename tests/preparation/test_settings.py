"""Every threshold is in one place and can be changed in one way."""

import dataclasses

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
        ("size=0", "--set size=0: give 32 to 2048"),
        ("size=33", "give an even number"),
        ("sync.most=3", "give 4 to 250"),
        ("sync.most=200", "sync.shortest_seconds=10: give 18 or more with sync.most=200"),
        ("sync.shortest_seconds=1.5", "give 3.2 or more with sync.most=15"),
        ("faces.longest_seconds=0", "give 0.4 or more"),
        ("faces.shortest_seconds=0.2", "give 0.4 or more"),
        ("faces.longest_seconds=0.5", "give faces.shortest_seconds=1 or more"),
        ("faces.gap=-5", "give 0 or more"),
        ("work.hours=0", "give 0.01 to 500"),
        ("splits.by=speakers", "give one of auto, speaker, clip"),
        ("splits.test=7.0", "give 0 to 1"),
        ("quality.blur=1e999", "give 0 or more"),
        ("probe.largest_pixels=36000001", "give 1 to 36000000"),
    ],
)
def test_mistakes_are_told(change, message):
    with pytest.raises(InputError, match=message):
        changed(Settings(), [change])


def test_defaults_keep_to_their_own_ranges():
    def text(value) -> str:
        return value if isinstance(value, str) else repr(value)

    changes = [f"size={Settings().size}"] + [
        f"{step.name}.{field.name}={text(getattr(getattr(Settings(), step.name), field.name))}"
        for step in dataclasses.fields(Settings)
        if step.name != "size"
        for field in dataclasses.fields(getattr(Settings(), step.name))
    ]
    assert len(changes) > 50 and changed(Settings(), changes) == Settings()
    together = ["sync.enabled=False", "sync.shortest_seconds=1"]
    assert changed(Settings(), together).sync.shortest_seconds == 1


def test_what_only_sorts_clips_does_not_make_them_anew():
    changes = ["splits.seed=4", "duplicates.enabled=False"]
    assert changed(Settings(), changes).of_a_clip() == Settings().of_a_clip()
    assert changed(Settings(), ["shots.change=9"]).of_a_clip() != Settings().of_a_clip()
