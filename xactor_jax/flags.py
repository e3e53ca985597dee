"""The flags of the training command, read so that whatever is wrong with them is one line."""

from __future__ import annotations

from absl import flags
from ml_collections import config_flags

from xactor_jax.errors import InputError

CONFIG = config_flags.DEFINE_config_file("config", help_string="Experiment.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", "", "Folder of this training; made when missing.")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the other processes before anything.")
MAINTENANCE = flags.DEFINE_bool(
    "maintenance_events", False, "Save and stop before Google Cloud stops this machine."
)
STOPPED = flags.DEFINE_integer(
    "stopped_exit_code", 0, "When asked to stop before the last step; a launcher may want 75."
)

_QUOTES = "'\""


def parse(argv: list[str]) -> list[str]:
    """Read the flags. Raises InputError for whatever is wrong with them or the config file."""
    try:
        rest = flags.FLAGS(argv)
        for name in ("config", "workdir"):
            if not flags.FLAGS[name].present:
                raise InputError(f"--{name} is missing (see --help)")
        CONFIG.value.keys()  # A file that is missing shows only when its config is asked for.
    except OSError as error:
        path = config_flags.get_config_filename(flags.FLAGS["config"])
        raise InputError(f"{path}: cannot read this config file") from error
    except (ImportError, SyntaxError) as error:
        raise InputError(f"--config: not a config file: {error}") from error
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        # The last line says what is wrong, also where the config file raised a traceback.
        reason = error.args[0].args[0] if isinstance(error.args[0], Exception) else error.args[0]
        said = str(reason).strip().splitlines()[-1]
        for argument in argv:
            flag = argument.partition("=")[0]
            if said.strip(_QUOTES) in flag.split(".")[1:]:  # a field of a group, said alone
                said = f"{flag}: no such field in this config"
        raise InputError(f"{said} (see --help)") from error
    return rest
