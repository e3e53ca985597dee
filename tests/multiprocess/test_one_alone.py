"""One process alone, or what happens to one of two alone and what the other then does."""

from multiprocess.processes import end_of, linear, start


def ended(workdir, *flags, count=2, **options):
    """Exit codes of a training, and what the processes have said last."""
    workdir.mkdir(exist_ok=True)
    codes, _ = end_of(start(count, workdir, *flags, **options))
    said = [(workdir / f"errors_{number}").read_text() for number in range(count)]
    return codes, [text.strip().rpartition("\n")[2] for text in said]


def test_one_that_has_joined_nobody_else_stops_when_asked_before_its_first_step(tmp_path):
    early = {"training": linear("stopped_early"), "joined": True}
    codes, said = ended(tmp_path, "--stopped_exit_code=75", count=1, **early)
    assert codes == [75], said
    assert (tmp_path / "model.safetensors").exists()
