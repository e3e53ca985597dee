"""Speech: phoneme times that fit the sound, mouths that fit the phonemes."""

from itertools import pairwise

import numpy as np
import pytest

from xactor_jax.data.actor_speech import SAMPLE_RATE, Phoneme, Voice, choose_voice, speaker
from xactor_jax.data.actor_text import sentence
from xactor_jax.data.actor_visemes import (
    close_lips,
    closure_curve,
    closures,
    coefficients,
    mouth_track,
    visemes,
)
from xactor_jax.data.facekit import EXPRESSION_INDEX
from xactor_jax.errors import InputError

TEXT = "Bob may put five shiny apples on the wooden table."
JAW = EXPRESSION_INDEX["jawOpen"]


def say(text, seed=1, before=(), voice=None):
    with speaker(seed) as espeak:
        for earlier in before:
            espeak.say(earlier, Voice())
        return espeak.say(text, voice or Voice())


@pytest.fixture(scope="module")
def spoken():
    return say(TEXT)


def test_phonemes_are_in_order_and_inside_the_sound(spoken):
    times = [(p.start, p.end) for p in spoken.phonemes]
    assert all(a < b for a, b in times)
    assert all(a[1] <= b[0] for a, b in pairwise(times))
    assert times[0][0] >= 0 and times[-1][1] <= spoken.seconds
    assert np.abs(spoken.audio).max() <= 1
    sounds = "".join(p.ipa for p in spoken.phonemes)
    # The consonants of the text, as any dictionary has them.
    assert [s for s in sounds if s in "bmpfvʃ"] == list("bbmpfvʃpb")


def test_vowels_are_loud_where_the_phonemes_say_so(spoken):
    def level(phoneme):
        piece = spoken.audio[
            int(phoneme.start * SAMPLE_RATE) : max(int(phoneme.end * SAMPLE_RATE), 1)
        ]
        return 10 * np.log10(np.mean(piece.astype(float) ** 2) + 1e-9)

    vowels = [level(p) for p in spoken.phonemes if p.stressed]
    stops = [level(p) for p in spoken.phonemes if p.ipa in ("p", "t", "ʃ", "f", "")]
    assert np.median(vowels) > np.median(stops) + 10  # dB


def test_the_same_seed_sounds_the_same_whatever_was_said_before():
    voice = Voice("en-us+f2")
    one = say(TEXT, 5, voice=voice)
    with speaker(9) as other:
        other.say("Something else.", voice)
    two = say(TEXT, 5, voice=voice)
    np.testing.assert_array_equal(one.audio, two.audio)
    assert one.phonemes == two.phonemes


def test_every_voice_that_can_be_chosen_speaks():
    random = np.random.default_rng(0)
    voices = [choose_voice(random) for _ in range(60)]
    assert len({voice.name for voice in voices}) > 20
    with speaker(1) as espeak:
        for name in sorted({voice.name for voice in voices}):
            assert espeak.say("Hello", Voice(name)).seconds > 0.2


def test_an_unknown_voice_is_named():
    with pytest.raises(InputError, match="nobody"):
        say(TEXT, voice=Voice("nobody"))


def test_sentences_cover_the_sounds_of_english():
    random = np.random.default_rng(0)
    texts = [sentence(random) for _ in range(80)]
    assert len(set(texts)) > 60
    with speaker(1) as espeak:
        sounds = {p.ipa.strip("ˈˌ") for t in texts for p in espeak.say(t, Voice()).phonemes}
    consonants = set("pbtdkɡmnŋfvθðszʃʒhlɹwj") | {"tʃ", "dʒ"}
    vowels = {"iː", "ɪ", "ɛ", "æ", "ɑː", "ʌ", "ʊ", "uː", "ɜː", "ə", "eɪ", "aɪ", "ɔɪ", "aʊ", "oʊ"}
    assert consonants - sounds == set()
    assert vowels - sounds == set()


def test_mouths_follow_the_sounds():
    assert visemes("") == ["rest"]
    assert visemes("ˈm") == visemes("p") == visemes("b") == ["closed"]
    assert visemes("f") != visemes("θ")
    assert len(visemes("ˈaɪ")) == 2  # a diphthong moves
    assert visemes("☃")  # an unknown sound still has a mouth


def test_jaw_opens_for_vowels_ahead_of_the_sound_and_shuts_for_silence():
    phonemes = [Phoneme(0.4, 0.8, "ˈɑː"), Phoneme(0.8, 1.6, "")]
    tone = np.zeros(2 * SAMPLE_RATE, np.float32)
    tone[int(0.4 * SAMPLE_RATE) : int(0.8 * SAMPLE_RATE)] = 0.5
    times = np.arange(0, 2, 0.01)
    track, _ = mouth_track(phonemes, tone, times, strength=1.0)
    jaw = track[:, JAW]
    assert jaw[(times > 0.5) & (times < 0.7)].min() > 0.4
    assert jaw[times > 1.0].max() < 0.01 and jaw[times < 0.2].max() < 0.01
    rise = times[np.argmax(jaw > jaw.max() / 2)]
    assert 0.33 < rise < 0.4  # the lips lead the voice by some tens of milliseconds


def test_lips_shut_on_p_b_m_in_at_least_one_frame(spoken):
    frames = np.arange(int(spoken.seconds * 25)) / 25
    shut = closure_curve(spoken.phonemes, frames)
    assert len(closures(spoken.phonemes)) == 6  # Bob may put apples table
    for start, end in closures(spoken.phonemes):
        inside = (frames >= start) & (frames <= end)
        assert inside.any() and shut[inside].min() == 1


def test_nothing_parts_shut_lips():
    wide = coefficients(
        jawOpen=0.8, mouthLowerDown=0.5, mouthUpperUp=0.5, mouthFunnel=0.4, mouthSmile=0.5
    )
    held = close_lips(np.stack([wide, wide]), np.array([0.0, 1.0], np.float32))
    assert held[0, JAW] == wide[JAW]
    for name in ("jawOpen", "mouthLowerDown_L", "mouthUpperUp_R", "mouthFunnel"):
        assert held[1, EXPRESSION_INDEX[name]] == 0
    assert held[1, EXPRESSION_INDEX["mouthPress_L"]] > 0
    assert held[1, EXPRESSION_INDEX["mouthSmile_L"]] > 0.2  # the feeling stays
