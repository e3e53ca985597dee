"""Files of torch.save are read as arrays; whatever else a file asks for is refused, never run."""

import io
import os
import pickle
import pickletools
import zipfile

import numpy as np
import pytest
from conversion.torch_archives import EXPECTED, GOLDEN, save

from xactor_jax.conversion.torch_file import read_torch_file
from xactor_jax.errors import InputError


def assert_as_saved(arrays):
    assert list(arrays) == list(EXPECTED)
    for name, expected in EXPECTED.items():
        assert arrays[name].dtype == expected.dtype
        np.testing.assert_array_equal(arrays[name], expected)


def test_a_state_dict_is_read_as_torch_saved_it():
    assert_as_saved(read_torch_file(GOLDEN))


@pytest.mark.parametrize("protocol", [2, 4])
def test_this_machines_torch_is_read(tmp_path, protocol):
    torch = pytest.importorskip("torch")
    save(tmp_path / "state.pth", torch, pickle_protocol=protocol)
    assert_as_saved(read_torch_file(tmp_path / "state.pth"))


def test_a_compressed_archive_is_read(tmp_path):
    path = tmp_path / "state.bin"
    with zipfile.ZipFile(GOLDEN) as saved, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in saved.namelist():
            file.writestr(name, saved.read(name))
    assert_as_saved(read_torch_file(path))


def test_arrays_are_views_of_the_file():
    arrays = [array for array in read_torch_file(GOLDEN).values() if array.size]
    assert not any(array.flags.owndata or array.flags.writeable for array in arrays)


def archive(folder, program, **entries):
    """A file as torch.save makes them, with another program."""
    path = folder / "weights.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", program)
        for name, contents in entries.items():
            file.writestr(f"archive/{name}", contents)
    return path


class Call:
    """Pickled as a call of a function, which loading runs."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("nested", [False, True])
def test_a_call_is_refused_and_not_made(tmp_path, protocol, nested):
    target = tmp_path / "made"
    call = Call(os.mkdir, str(target))
    path = archive(tmp_path, pickle.dumps({"a": [call]} if nested else call, protocol))
    with pytest.raises(InputError, match=rf"weights\.pth: asks for {os.name}\.mkdir, which no"):
        read_torch_file(path)
    assert not target.exists()


@pytest.mark.parametrize("function", [eval, exec, getattr, __import__])
def test_a_builtin_is_refused_by_its_name(tmp_path, function):
    path = archive(tmp_path, pickle.dumps(Call(function, "a", "b")))
    with pytest.raises(InputError, match=f"asks for builtins.{function.__name__}"):
        read_torch_file(path)


def test_an_object_is_refused(tmp_path):
    path = archive(tmp_path, pickle.dumps({"a": np.float64(1)}))
    with pytest.raises(InputError, match=r"asks for numpy\."):
        read_torch_file(path)
    path = archive(tmp_path, pickle.dumps({"a": {1, 2}}))
    with pytest.raises(InputError, match=r"asks for EMPTY_SET"):
        read_torch_file(path)


@pytest.mark.parametrize("value", [3, {}, {"epoch": 3}, {1: 2}, [1], "text", None])
def test_a_file_of_something_else_is_named(tmp_path, value):
    with pytest.raises(InputError, match=r"weights\.pth: .*tensor"):
        read_torch_file(archive(tmp_path, pickle.dumps(value)))


def tensor(count=6, offset=0, shape=(2, 3), strides=(3, 1), storage="FloatStorage", key="0"):
    """The program of {"a": one tensor}, in the letters of Python's pickle."""

    def numbers(values):
        return b"(" + b"".join(b"I%d\n" % value for value in values) + b"t"

    return (
        b"}Va\nctorch._utils\n_rebuild_tensor_v2\n(("
        b"Vstorage\nctorch\n%b\nV%b\nVcpu\nI%d\ntQ"
        % (storage.encode(), key.encode(), count)
        + b"I%d\n" % offset
        + numbers(shape)
        + numbers(strides)
        + b"I00\nNtRs."
    )


SIX = {"data/0": np.arange(6, dtype=np.float32).tobytes()}


def test_a_written_program_is_read(tmp_path):
    pickletools.dis(tensor(), out=io.StringIO())  # raises unless it is a whole pickle
    arrays = read_torch_file(archive(tmp_path, tensor(), **SIX))
    np.testing.assert_array_equal(arrays["a"], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    "program",
    [
        tensor(shape=(2, 4)),
        tensor(offset=1),
        tensor(offset=-1),
        tensor(shape=(-2, 3)),
        tensor(strides=(-3, 1)),
        tensor(strides=(1,)),
        tensor(count=7),
        tensor(count=-1),
        tensor(key="1"),
        tensor(key="../data.pkl"),
        tensor()[:-1],
        tensor()[:20],
        b"R.",
        b"t.",
        b"",
        b"\xff\xff",
    ],
)
def test_a_damaged_program_is_named(tmp_path, program):
    with pytest.raises(InputError, match=r"weights\.pth: damaged"):
        read_torch_file(archive(tmp_path, program, **SIX))


def test_a_storage_of_another_kind_is_refused(tmp_path):
    path = archive(tmp_path, tensor(storage="ComplexFloatStorage"), **SIX)
    with pytest.raises(InputError, match=r"asks for torch\.ComplexFloatStorage"):
        read_torch_file(path)


def test_files_that_are_no_archive_are_named(tmp_path):
    path = tmp_path / "old.pth"
    for contents in (b"", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", GOLDEN.read_bytes()[:-100]):
        path.write_bytes(contents)
        with pytest.raises(InputError, match=r"old\.pth: not a file of today's torch\.save"):
            read_torch_file(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("mimetype", "text")
    with pytest.raises(InputError, match=r"old\.pth: a zip archive, but not one that torch\.save"):
        read_torch_file(path)
    big = archive(tmp_path, tensor(), **SIX, byteorder="big")
    with pytest.raises(InputError, match=r"weights\.pth: saved on a big-endian machine"):
        read_torch_file(big)
