"""Arrays out of the files that torch.save writes, without running anything in them.

Such a file is a zip archive of raw arrays and a pickle, a small program that says how to put them
together. The program is not run by Python: it is read here instruction by instruction, and the few
that dicts of tensors need are all that is understood.
"""

from __future__ import annotations

import math
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from xactor_jax.errors import InputError

STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
LOCAL_HEADER = 30  # bytes of a zip entry's own header, before its name


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a saved dict of tensors, by their keys, as views of the file.

    Raises:
      InputError: the file is no such archive, is damaged, or holds or asks for anything else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(names) != 1:
                raise InputError(f"{path}: a zip archive, but not one that torch.save wrote")
            program, folder = archive.read(names[0]), names[0].removesuffix("data.pkl")
            if "byteorder" in _inside(archive, folder) and b"big" in archive.read(
                f"{folder}byteorder"
            ):
                raise InputError(f"{path}: saved on a big-endian machine; save it again on another")
            result = _Reader(path, _Storages(path, archive, folder)).run(program)
    except zipfile.BadZipFile:
        raise InputError(
            f"{path}: not a file of today's torch.save (a zip archive), or damaged; "
            "save it again with a current version, or as safetensors"
        ) from None
    if not isinstance(result, dict) or not result:
        raise InputError(f"{path}: holds no dict of tensors")
    for key, value in result.items():
        if not isinstance(key, str) or not isinstance(value, np.ndarray):
            raise InputError(f"{path}: {key} is not a tensor; give a file of weights alone")
    return result


def _inside(archive: zipfile.ZipFile, folder: str) -> set[str]:
    return {name.removeprefix(folder) for name in archive.namelist()}


class _Name(NamedTuple):
    """What the program refers to in some Python module; here no more than its name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class _Storages:
    """The raw arrays of an archive."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, folder: str):
        self._archive, self._folder = archive, folder
        self._contents = np.memmap(path, np.uint8, "r")

    def read(self, key: str, dtype: np.dtype, count: int) -> np.ndarray:
        """The flat array of one entry; raises ValueError where it is shorter than `count`."""
        entry = self._archive.getinfo(f"{self._folder}data/{key}")
        if entry.compress_type != zipfile.ZIP_STORED:
            stored = np.frombuffer(self._archive.read(entry), np.uint8)
        else:
            header = self._contents[entry.header_offset :][:LOCAL_HEADER].tobytes()
            name, extra = (int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
            stored = self._contents[entry.header_offset + LOCAL_HEADER + name + extra :]
        size = count * dtype.itemsize
        if not 0 <= size <= min(entry.file_size, len(stored)):
            raise ValueError(f"storage {key} is cut short")
        return stored[:size].view(dtype)


class _Reader:
    """Follows a pickle's instructions on a stack of its own.

    Values are numbers, strings, tuples, lists, dicts and arrays; names of Python's objects are
    values as well, and never looked up.
    """

    def __init__(self, path: Path, storages: _Storages):
        self._path, self._storages = path, storages
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, program: bytes) -> Any:
        try:
            for opcode, argument, _ in pickletools.genops(program):
                if opcode.name == "STOP":
                    return self._stack.pop()
                self._step(opcode.name, argument)
        except (
            ValueError,
            IndexError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
        ) as error:
            raise InputError(f"{self._path}: damaged ({error})") from None
        raise InputError(f"{self._path}: damaged (its end is missing)")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _IGNORED:
            return
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in _LITERALS:
            stack.append(argument)
        elif name in _TUPLES:
            items = [stack.pop() for _ in range(_TUPLES[name])]
            stack.append(tuple(reversed(items)))
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memo[argument])
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name in _INSTRUCTIONS:
            _INSTRUCTIONS[name](self, argument)
        else:
            raise InputError(f"{self._path}: asks for {name}, which no file of weights needs")

    def _to_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._to_mark()))

    def _append(self, _: Any) -> None:
        item = self._stack.pop()
        self._list().append(item)

    def _appends(self, _: Any) -> None:
        items = self._to_mark()
        self._list().extend(items)

    def _list(self) -> list[Any]:
        if not isinstance(self._stack[-1], list):
            raise ValueError("items without a list")
        return self._stack[-1]

    def _set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._dict()[key] = value

    def _set_items(self, _: Any) -> None:
        items = self._to_mark()
        self._dict().update(zip(items[::2], items[1::2], strict=True))

    def _dict(self) -> dict[Any, Any]:
        if not isinstance(self._stack[-1], dict):
            raise ValueError("items without a dict")
        return self._stack[-1]

    def _global(self, argument: str) -> None:
        self._stack.append(_Name(*argument.split(" ", 1)))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(_Name(str(module), str(name)))

    def _attributes(self, _: Any) -> None:
        """Attributes of a state dict (its versions) are dropped."""
        self._stack.pop()
        self._dict()

    def _storage(self, _: Any) -> None:
        identifier = self._stack.pop()
        kind, storage, key, _, count = identifier
        if kind != "storage" or not isinstance(storage, _Name):
            raise ValueError("an unknown kind of reference")
        if storage.module != "torch" or storage.name not in STORAGES:
            raise self._refused(storage)
        self._stack.append(self._storages.read(key, STORAGES[storage.name], count))

    def _call(self, _: Any) -> None:
        arguments, name = self._stack.pop(), self._stack.pop()
        if str(name) not in _CALLS or not isinstance(name, _Name):
            raise self._refused(name)
        self._stack.append(_CALLS[str(name)](*arguments))

    def _refused(self, name: Any) -> InputError:
        return InputError(
            f"{self._path}: asks for {name}, which no file of weights needs; nothing of it was run"
        )


def _view(storage: np.ndarray, offset: int, shape: tuple, strides: tuple, *_: Any) -> np.ndarray:
    """Part of a storage as a tensor; sizes and strides count items."""
    if min((offset, *shape, *strides), default=0) < 0 or len(shape) != len(strides):
        raise ValueError("a tensor of negative size")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if math.prod(shape) == 0:
        return np.empty(shape, storage.dtype)
    if last >= len(storage):
        raise ValueError("a tensor outside its storage")
    step = storage.dtype.itemsize
    view = np.lib.stride_tricks.as_strided(
        storage[offset:], shape, [stride * step for stride in strides], writeable=False
    )
    return view


def _parameter(tensor: np.ndarray, *_: Any) -> np.ndarray:
    return tensor


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda *pairs: dict(*pairs),
    "torch._utils._rebuild_tensor": _view,
    "torch._utils._rebuild_tensor_v2": _view,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": lambda sizes: tuple(sizes),
}
# What reading a damaged program raises.
_FAULTS = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError)
_IGNORED = {"PROTO", "FRAME"}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"),
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_INSTRUCTIONS: dict[str, Callable[[_Reader, Any], None]] = {
    "TUPLE": _Reader._tuple,
    "APPEND": _Reader._append,
    "APPENDS": _Reader._appends,
    "SETITEM": _Reader._set_item,
    "SETITEMS": _Reader._set_items,
    "GLOBAL": _Reader._global,
    "STACK_GLOBAL": _Reader._stack_global,
    "BUILD": _Reader._attributes,
    "BINPERSID": _Reader._storage,
    "REDUCE": _Reader._call,
}
