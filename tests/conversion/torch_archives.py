"""What tests/golden/state_dict.pth holds, and how it was made (needs torch)."""

import collections
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden" / "state_dict.pth"

# Every value can be told from its place alone.
ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)
EXPECTED = {
    "float": ROWS,
    "half": (ROWS / 4).astype(np.float16),
    "bfloat": (ROWS / 4).astype(ml_dtypes.bfloat16),
    "double": ROWS.astype(np.float64),
    "long": ROWS.astype(np.int64),
    "transposed": ROWS.T,
    "part": ROWS[1:, 2:],
    "parameter": -ROWS,
    "count": np.array(7, np.int64),
    "empty": np.zeros((0, 4), np.float32),
}


def save(path: Path, torch: Any, **options: Any) -> None:
    """Save a state dict, with the attribute that modules give theirs."""
    rows = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    state = collections.OrderedDict(
        float=rows,
        half=(rows / 4).half(),
        bfloat=(rows / 4).bfloat16(),
        double=rows.double(),
        long=rows.long(),
        transposed=rows.T,  # these two share the storage of the first
        part=rows[1:, 2:],
        parameter=torch.nn.Parameter(-rows),
        count=torch.tensor(7),
        empty=torch.zeros(0, 4),
    )
    state._metadata = collections.OrderedDict({"": {"version": 1}})  # pyrefly: ignore
    torch.save(state, path, **options)


if __name__ == "__main__":
    import torch

    save(GOLDEN, torch)
