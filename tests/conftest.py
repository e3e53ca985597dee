"""What every test needs: JAX on the CPU, and flags that count as parsed (Grain's workers ask)."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from absl import flags

flags.FLAGS.mark_as_parsed()
