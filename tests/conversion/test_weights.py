"""Tables lead every published array to one parameter, and say which do not fit."""

import json
import re

import ml_dtypes
import numpy as np
import pytest
from conversion.torch_archives import EXPECTED, GOLDEN
from flax import nnx
from safetensors.numpy import save_file

from xactor_jax.conversion.weights import (
    ARRAY,
    BATCH_NORM,
    LAYER,
    NORM,
    POINTWISE,
    Row,
    Table,
    apply_table,
    build_model,
    nested,
    read_arrays,
    weight_files,
)
from xactor_jax.errors import InputError

DRAW = np.random.default_rng(0)


def drawn(*shape):
    return DRAW.normal(size=shape).astype(np.float32)


BLOCK = (
    Row("conv", "convs/{i}", LAYER),
    Row("to_out.0", "out/{i}", POINTWISE),
    Row("proj_attn", "out/{i}", POINTWISE),  # the older name of the same
)
TABLE = Table(
    (
        *nested("blocks.{i}", "", BLOCK),
        Row("norm", "norm", NORM),
        Row("bn", "bn", BATCH_NORM),
        Row("fc", "fc", LAYER),
        Row("token", "token", ARRAY),
    ),
    unused=("*.num_batches_tracked", "pe"),
)
PUBLISHED = {
    "blocks.0.conv.weight": drawn(5, 4, 3, 3),
    "blocks.0.conv.bias": drawn(5),
    "blocks.1.conv.weight": drawn(6, 5, 3),  # a convolution over time
    "blocks.0.to_out.0.weight": drawn(7, 4, 1, 1),  # a linear layer as a convolution
    "blocks.1.proj_attn.weight": drawn(7, 4),
    "norm.weight": drawn(4),
    "norm.bias": drawn(4),
    "bn.weight": drawn(3),
    "bn.bias": drawn(3),
    "bn.running_mean": drawn(3),
    "bn.running_var": drawn(3),
    "bn.num_batches_tracked": np.int64(9),
    "fc.weight": drawn(2, 3),
    "fc.bias": drawn(2),
    "token": drawn(1, 8),
    "pe": drawn(1, 4),
}


def tree():
    """The parameters to fill, under our names and in our layouts."""
    shapes = {
        "convs": {0: {"kernel": (3, 3, 4, 5), "bias": (5,)}, 1: {"kernel": (3, 5, 6)}},
        "out": {0: {"kernel": (4, 7)}, 1: {"kernel": (4, 7)}},
        "norm": {"scale": (4,), "bias": (4,)},
        "bn": {"scale": (3,), "bias": (3,), "mean": (3,), "var": (3,)},
        "fc": {"kernel": (3, 2), "bias": (2,)},
        "token": (1, 8),
    }

    def zeros(node):
        return (
            {key: zeros(value) for key, value in node.items()}
            if isinstance(node, dict)
            else np.zeros(node, np.float32)
        )

    return zeros(shapes)


def test_every_array_lies_at_its_place_in_its_layout():
    found = apply_table(TABLE, PUBLISHED, tree())
    p = PUBLISHED
    kernel = p["blocks.0.conv.weight"]
    for o, i, y, x in [(0, 0, 0, 0), (4, 1, 2, 0), (2, 3, 0, 1)]:
        assert found["convs"][0]["kernel"][y, x, i, o] == kernel[o, i, y, x]
    assert found["convs"][1]["kernel"][2, 4, 5] == p["blocks.1.conv.weight"][5, 4, 2]
    np.testing.assert_array_equal(
        found["out"][0]["kernel"], p["blocks.0.to_out.0.weight"][:, :, 0, 0].T
    )
    np.testing.assert_array_equal(found["out"][1]["kernel"], p["blocks.1.proj_attn.weight"].T)
    np.testing.assert_array_equal(found["fc"]["kernel"], p["fc.weight"].T)
    same = {
        "norm.weight": found["norm"]["scale"],
        "norm.bias": found["norm"]["bias"],
        "bn.weight": found["bn"]["scale"],
        "bn.running_mean": found["bn"]["mean"],
        "bn.running_var": found["bn"]["var"],
        "token": found["token"],
    }
    for key, array in same.items():
        np.testing.assert_array_equal(array, p[key])


def test_nothing_is_copied():
    found = apply_table(TABLE, PUBLISHED, tree())
    assert np.shares_memory(found["convs"][0]["kernel"], PUBLISHED["blocks.0.conv.weight"])


def without(*keys):
    return {key: array for key, array in PUBLISHED.items() if key not in keys}


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (without("fc.bias"), "they lack fc.bias"),
        (without("blocks.1.conv.weight"), "they lack blocks.1.conv.weight"),
        # Either name of a parameter would do; the newer one is asked for.
        (without("blocks.1.proj_attn.weight"), "they lack blocks.1.to_out.0.weight"),
        ({**PUBLISHED, "fc.scale": drawn(2)}, "they have the unknown fc.scale"),
        ({**PUBLISHED, "blocks.2.conv.bias": drawn(2)}, "have the unknown blocks.2.conv.bias"),
        ({**PUBLISHED, "xpe": drawn(2)}, "have the unknown xpe"),
        (
            {**PUBLISHED, "fc.weight": drawn(3, 2)},
            r"have in another shape fc.weight (3, 2) for fc/kernel (3, 2)",
        ),
        (
            {**PUBLISHED, "blocks.0.to_out.0.weight": drawn(7, 4, 3, 3)},
            "have in another shape blocks.0.to_out.0.weight (7, 4, 3, 3)",
        ),
        (
            {**PUBLISHED, "blocks.1.to_out.0.weight": drawn(7, 4)},
            "have twice blocks.1.to_out.0.weight and blocks.1.proj_attn.weight",
        ),
        ({}, "they lack bn.bias, bn.running_mean, bn.weight, bn.running_var and 10 more"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(arrays, said):
    with pytest.raises(InputError, match=re.escape(said)) as raised:
        apply_table(TABLE, arrays, tree(), "some.pth")
    assert str(raised.value).startswith("some.pth: ") and "\n" not in str(raised.value)


def test_a_parameter_that_no_row_leads_to_is_named():
    with pytest.raises(InputError, match="they lack extra/kernel"):
        apply_table(TABLE, PUBLISHED, {**tree(), "extra": {"kernel": np.zeros(3)}})


class Layer(nnx.Module):
    def __init__(self, rngs):
        self.fc = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x):
        return self.fc(x)


def test_a_model_is_built_with_half_precision_weights_in_fp32():
    arrays = {
        "fc.weight": drawn(2, 3).astype(np.float16),
        "fc.bias": drawn(2).astype(ml_dtypes.bfloat16),
    }
    model = build_model(lambda rngs: Layer(rngs), Table((Row("fc", "fc", LAYER),)), arrays)
    assert model.fc.kernel[...].dtype == np.float32
    x = drawn(4, 3)
    weight, bias = (array.astype(np.float32) for array in arrays.values())
    np.testing.assert_allclose(model(x), x @ weight.T + bias, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model.fc.bias[...], bias)


FLOATS = {
    "a": drawn(2, 3),
    "b": drawn(4).astype(np.float16),
    "c": np.arange(3),
    "d": np.array(True),
    "e": drawn(5).astype(ml_dtypes.bfloat16),
}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_files_and_folders_of_weights_are_read(tmp_path):
    save_file(FLOATS, tmp_path / "model.safetensors", {"format": "pt"})
    assert_same(read_arrays(tmp_path / "model.safetensors"), FLOATS)
    # Of a folder with both formats the one that is only arrays is taken.
    (tmp_path / "model.bin").write_bytes(b"not read")
    (tmp_path / "config.json").write_text("{}")
    assert_same(read_arrays(tmp_path), FLOATS)
    assert_same(read_arrays(GOLDEN), EXPECTED)


def test_shards_are_joined(tmp_path):
    parts = {"1.safetensors": {"a": FLOATS["a"]}, "2.safetensors": {"b": FLOATS["b"]}}
    for name, arrays in parts.items():
        save_file(arrays, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    where = {key: name for name, arrays in parts.items() for key in arrays}
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    assert_same(read_arrays(tmp_path), {"a": FLOATS["a"], "b": FLOATS["b"]})
    assert [file.name for file in weight_files(tmp_path)] == list(parts)
    (tmp_path / "2.safetensors").unlink()
    with pytest.raises(InputError, match=r"2\.safetensors: missing, though model\.safetensors"):
        read_arrays(tmp_path)
    for broken in ("", "{}", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}'):
        index.write_text(broken)
        with pytest.raises(InputError, match=r"index\.json: not an index of weight files"):
            read_arrays(tmp_path)


def test_files_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(InputError, match=r"model\.safetensors: no such file or folder"):
        read_arrays(path)
    with pytest.raises(InputError, match="no weights in this folder"):
        read_arrays(tmp_path)
    save_file(FLOATS, path)
    whole = path.read_bytes()
    for contents in (b"", b"\xff" * 20, whole[:40], whole[:-1]):
        path.write_bytes(contents)
        with pytest.raises(InputError, match=r"model\.safetensors: not a whole safetensors file"):
            read_arrays(path)
    save_file({"a": np.zeros(2, np.uint16)}, path)
    with pytest.raises(InputError, match="a is of the type U16, which is not read"):
        read_arrays(path)
    save_file(FLOATS, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"holds several weights \(model\.safetensors, other"):
        read_arrays(tmp_path)
    (tmp_path / "model.ckpt").write_bytes(b"")
    with pytest.raises(InputError, match=r"model\.ckpt: give a file that ends in \.safetensors"):
        read_arrays(tmp_path / "model.ckpt")
