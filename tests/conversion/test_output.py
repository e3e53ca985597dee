"""Converted networks are weights files of this package with a manifest of hashes."""

import dataclasses
import hashlib
import json
import shutil

import numpy as np
import pytest
from conversion.torch_archives import EXPECTED, GOLDEN
from safetensors.numpy import save_file

from xactor_jax.checkpoint import load_weights
from xactor_jax.conversion.output import Network, write_networks
from xactor_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Config:
    width: int = 4


def network(*files, convert=None):
    def transposed(arrays, where):
        return {
            "params": {"list": [{"kernel": arrays["float"].T}], "half": arrays["half"]},
            "statistics": {"mean": arrays["bfloat"]},
        }

    return Network("some_network", Config(), files, convert or transposed)


def test_the_file_holds_the_arrays_and_the_config(tmp_path):
    files = write_networks(tmp_path / "new", "some", [network(GOLDEN)])
    assert [file.name for file in files] == ["some_network.safetensors", "some.manifest.json"]
    assert sorted((tmp_path / "new").iterdir()) == sorted(files)
    arrays, metadata = load_weights(files[0])
    assert metadata == {"kind": "some_network", "some_network": {"width": 4}}
    stored = {
        "float": arrays["params"]["list"][0]["kernel"].T,
        "half": arrays["params"]["half"],
        "bfloat": arrays["statistics"]["mean"],
    }
    for name, array in stored.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, EXPECTED[name].astype(np.float32))


def test_the_manifest_holds_the_hash_of_every_source_and_array(tmp_path):
    files = write_networks(tmp_path, "some", [network(GOLDEN)])
    manifest = json.loads(files[1].read_text())
    assert manifest["kind"] == "some"
    assert manifest["sources"] == {GOLDEN.name: hashlib.sha256(GOLDEN.read_bytes()).hexdigest()}
    kernel = np.ascontiguousarray(EXPECTED["float"].T).tobytes()
    hashes = manifest["networks"]["some_network.safetensors"]
    assert hashes["params/list/0/kernel"] == hashlib.sha256(kernel).hexdigest()
    assert len(hashes) == 3


def test_of_a_key_in_two_files_the_second_counts(tmp_path):
    later = tmp_path / "later.safetensors"
    save_file({"float": np.full((3, 4), 5, np.float32)}, later)
    files = write_networks(tmp_path, "some", [network(GOLDEN, later)])
    arrays, _ = load_weights(files[0])
    assert (arrays["params"]["list"][0]["kernel"] == 5).all()


def test_a_failure_leaves_no_half_written_file(tmp_path):
    def broken(arrays, where):
        return {"params": {"a": np.zeros(3, np.float32), "b": np.array(["text"])}}

    with pytest.raises(ValueError):
        write_networks(tmp_path, "some", [network(GOLDEN, convert=broken)])
    assert not list(tmp_path.iterdir())
    blocked = tmp_path / "file"
    shutil.copy(GOLDEN, blocked)
    with pytest.raises(InputError, match=r"file: File exists|file.*: Not a directory"):
        write_networks(blocked, "some", [network(GOLDEN)])
