"""The way back: `python -m lumiere_jax.export_weights --workdir=DIR --output=DIR`.

Turns an image checkpoint of DeepFloyd IF's kind, imported or trained here, into a directory that
`diffusers` loads and samples from.
"""

from lumiere_jax.runtime import errors
from lumiere_jax.runtime.path_flags import define_path

_WORKDIR = define_path("workdir", None, "Workdir with a checkpoint.", required=True)
_OUTPUT = define_path("output", None, "Directory to make.", required=True)


def main(argv: list[str]) -> None:
    """Exports what the flags name."""
    from lumiere_jax.open_weights.exporting import export_weights

    export_weights(_WORKDIR.value, _OUTPUT.value)
    print(_OUTPUT.value)


if __name__ == "__main__":
    errors.run(main)
