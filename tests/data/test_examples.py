"""Face examples: who is shown, who drives, at which time, and from which source."""

import collections

import numpy as np
import pytest
from data.flat_clips import make_clip, seen

from xactor_jax.data.examples import FaceExampleConfig, FaceExamples
from xactor_jax.data.shards import write_shards
from xactor_jax.errors import InputError

SMALL = {"image_size": 8, "crop_size": 8, "face_size": 4, "targets": 3, "stride": 2}


def clips_of(source):
    if source == "footage":
        return [make_clip("a", "anna", 8, number=0), make_clip("b", "ben", 9, number=1)]
    return [
        *(
            make_clip(f"m0-{who}", who, 6, source="actor", motion="m0", number=2 + n)
            for n, who in enumerate(("cleo", "dora", "emil"))
        ),
        make_clip("m1-cleo", "cleo", 2, source="actor", motion="m1", number=5),
        *(  # clips of two segments
            make_clip(f"m2-{who}", who, 2, source="actor", motion="m2", start=start, number=6 + n)
            for start in (2, 0)
            for n, who in enumerate(("cleo", "dora"))
        ),
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    found = []
    for source in ("footage", "actor"):
        folder = tmp_path_factory.mktemp(source)
        write_shards(folder, {"train": clips_of(source), "test": []})
        found.append(str(folder))
    return tuple(found)


@pytest.fixture(scope="module")
def make(folders):
    def make(folders=folders, held_out=False, **changes):
        config = {**SMALL, "folders": folders, "augment": False, **changes}
        return FaceExamples(FaceExampleConfig(**config), held_out=held_out)

    return make


def rng(seed=0):
    return np.random.default_rng(seed)


def sources(examples):
    elements = [examples[i] for i in range(len(examples))]
    return elements, [examples.headers[e["segment"]].source for e in elements]


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_sources_have_their_shares_and_every_window_comes(make, share):
    examples = make(footage_share=share)
    elements, drawn = sources(examples)
    for i in range(0, len(drawn) + 1, 5):  # shares hold all along the epoch
        assert abs(drawn[:i].count("footage") - share * i) <= 1
    # Windows of one frame, two apart, the last ending with the clip.
    expected = {(0, s) for s in (0, 2, 4, 6, 7)} | {(1, s) for s in (0, 2, 4, 6, 8)}
    expected |= {(clip, s) for clip in (2, 3, 4) for s in (0, 2, 4, 5)}
    expected |= {(clip, s) for clip in range(5, 10) for s in (0, 1)}
    assert {(e["segment"], e["start"]) for e in elements} == expected


@pytest.mark.parametrize(("share", "only"), [(0.0, "actor"), (1.0, "footage")])
def test_a_share_of_nothing_is_nothing(make, share, only):
    assert set(sources(make(footage_share=share))[1]) == {only}


@pytest.mark.parametrize(("folder", "only"), [(0, "footage"), (1, "actor")])
def test_one_source_alone_fills_the_epoch(make, folders, folder, only):
    elements, drawn = sources(make(folders=folders[folder : folder + 1], footage_share=0.3))
    assert set(drawn) == {only}
    assert len(elements) == {"footage": 10, "actor": 22}[only]
    with pytest.raises(IndexError):
        make()[10**6]


def segment(examples, clip):
    return next(n for n, header in enumerate(examples.headers) if header.clip == clip)


@pytest.mark.parametrize(("cross", "expected"), [(0.0, 0), (1.0, 1), (0.5, 0.5)])
def test_actors_are_driven_by_the_same_motion_on_another_identity(make, cross, expected):
    examples, crossed, others = make(cross_identity=cross, other_crops=2), 0, set()
    element = {"segment": segment(examples, "m0-dora"), "start": 2}
    for seed in range(100):
        example = examples.load(element, rng(seed))
        shown, driving, other = (seen(example[k]) for k in ("target", "driving", "other_driving"))
        assert {(who, number) for who, _, number in shown} == {("dora", 3)}
        assert [t for _, t, _ in driving] == [t for _, t, _ in shown]
        assert [t for _, t, _ in other] == [t for _, t, _ in shown[:2]]
        (driver,), (second,) = ({who for who, _, _ in crops} for crops in (driving, other))
        # One of the two crops is the person's own, the other is another's.
        assert (driver == "dora") != (second == "dora")
        others.add(driver if second == "dora" else second)
        crossed += driver != "dora"
    assert others == {"cleo", "emil"}
    assert abs(crossed / 100 - expected) <= (0.25 if 0 < expected < 1 else 0)  # five deviations


def test_a_later_segment_is_driven_by_the_same_stretch_of_time(make):
    examples = make(cross_identity=1.0)
    for seed in range(10):
        example = examples.load({"segment": segment(examples, "m2-cleo"), "start": 0}, rng(seed))
        shown, driving = seen(example["target"]), seen(example["driving"])
        assert {who for who, _, _ in driving} == {"dora"}
        assert [t for _, t, _ in driving] == [t for _, t, _ in shown]
        assert {t for _, t, _ in shown} <= {2, 3}


@pytest.mark.parametrize("clip", ["a", "m1-cleo"])
def test_who_has_no_other_rendering_drives_alone(make, clip):
    examples = make(cross_identity=1.0)
    example = examples.load({"segment": segment(examples, clip), "start": 0}, rng())
    assert seen(example["driving"]) == seen(example["target"])
    assert seen(example["other_driving"]) == seen(example["target"])[:2]


def test_all_pictures_of_an_example_belong_together(make):
    examples, references = make(), collections.Counter()
    element = {"segment": segment(examples, "b"), "start": 4}
    box = clips_of("footage")[1].head_box
    for seed in range(60):
        example = examples.load(element, rng(seed))
        shapes = {name: value.shape for name, value in example.items()}
        assert shapes == {
            "reference": (8, 8, 3),
            "target": (3, 8, 8, 3),
            "reference_face": (4, 4, 3),
            "target_face": (3, 4, 4, 3),
            "driving": (3, 8, 8, 3),
            "other_driving": (2, 8, 8, 3),
            "reference_driving": (8, 8, 3),
            "box": (3, 3),
            "head_box": (3, 3),
            "truth": (3, 60),
            "has_truth": (),
            "is_footage": (),
        }
        (reference,) = seen(example["reference"])
        assert [reference] == seen(example["reference_face"]) == seen(example["reference_driving"])
        references[reference[1]] += 1
        shown = seen(example["target"])
        assert shown == seen(example["target_face"])
        assert shown[0][1] in (4, 5)  # the window's start, within its stride
        times = [t for _, t, _ in shown]
        place, side = box[times], box[reference[1]][2]
        expected = np.concatenate(
            [(place[:, :2] - box[reference[1], :2]) / side, place[:, 2:] / side], axis=1
        )
        np.testing.assert_allclose(example["box"], expected, atol=1e-5)
    assert set(references) == set(range(9))  # any frame of the clip


def test_consecutive_targets_are_a_run_of_frames(make):
    examples = make(consecutive=True)
    assert "m1-cleo" not in {examples.headers[e["segment"]].clip for e in sources(examples)[0]}
    for i in range(len(examples)):
        element = examples[i]
        times = [t for _, t, _ in seen(examples.load(element, rng(i))["target"])]
        assert times == [element["start"] + k for k in range(3)]


def test_the_same_seed_gives_the_same_example(make):
    examples = make(augment=True)
    element = {"segment": segment(examples, "m0-cleo"), "start": 0}
    first, again, other = (examples.load(element, rng(seed)) for seed in (3, 3, 4))
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
    assert any(not np.array_equal(value, other[name]) for name, value in first.items())


def test_augmented_pictures_of_a_person_change_alike(make):
    examples = make(augment=True)
    example = examples.load({"segment": segment(examples, "a"), "start": 0}, rng(1))
    plain = make().load({"segment": segment(examples, "a"), "start": 0}, rng(1))
    change = example["target"].astype(int) - plain["target"]
    # Blue is the same in all frames, so one change of colour moves it by one amount.
    assert np.ptp(change[..., 2]) <= 2
    assert np.abs(change[..., 2]).max() > 2


def test_fixed_batches_are_fixed_and_driven_by_another(make):
    examples = make()
    first, again = examples.fixed_batches(3), examples.fixed_batches(3)
    assert set(first) == {"footage", "actor"}
    assert len(first["footage"]["target"]) == 2
    assert len(first["actor"]["target"]) == 3
    for source, batch in first.items():
        for name, value in batch.items():
            np.testing.assert_array_equal(value, again[source][name])
        assert [t for _, t, _ in seen(batch["reference"])] == [0] * len(batch["reference"])
        for target, driving in zip(batch["target"], batch["driving"], strict=True):
            shown, drivers = seen(target), seen(driving)
            assert [t for _, t, _ in shown] == [t for _, t, _ in drivers]
            crossed = source == "actor" and shown[0][2] != 5  # m1 has one rendering only
            assert (shown[0][0] != drivers[0][0]) == crossed


def test_a_split_without_clips_is_named(make):
    with pytest.raises(InputError, match="test"):
        make(held_out=True)


@pytest.mark.parametrize(("targets", "measured"), [(8, ["b", "g"]), (9, ["d", "e", "g"])])
def test_validation_is_measured_where_it_can_be(make, tmp_path, targets, measured):
    """One folder's clips for validation have eight frames at most; the other has none."""
    three = {
        "train": [make_clip("a", "anna", 9)],
        "validation": [make_clip("b", "ben", 8), make_clip("c", "ben", 2)],
        "test": [make_clip("d", "cleo", 9), make_clip("e", "cleo", 9)],
    }
    two = {"train": [make_clip("f", "dora", 9)], "test": [make_clip("g", "emil", 9)]}
    for name, splits in (("three", three), ("two", two)):
        write_shards(tmp_path / name, splits)
    folders = (str(tmp_path / "three"), str(tmp_path / "two"))
    examples = make(folders, held_out=True, consecutive=True, targets=targets)
    assert [examples.headers[n].clip for n in examples.segments["footage"]] == measured


@pytest.mark.parametrize(("view_scale", "told"), [(2.0, True), (4.0, False)])
def test_pictures_that_must_be_enlarged_are_told(make, folders, caplog, view_scale, told):
    """Views are two head boxes wide, 32 pixels here; at scale 4 a picture shows twice as much."""
    examples = make(image_size=40, view_scale=view_scale)
    for segment in (0, 1, 0):
        examples.clip(segment)
    advice = f"{folders[0]}: views of 32 pixels are enlarged; prepare or render them with --size=40"
    assert caplog.text.count(advice) == told
