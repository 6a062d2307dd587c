"""The way back: `python -m lumiere_jax.export_weights --workdir=DIR --output=DIR`.

Turns an image checkpoint of DeepFloyd IF's kind, imported or trained here, into a directory that
`diffusers` loads and samples from.
"""

from absl import flags

from lumiere_jax.runtime import errors

_WORKDIR = flags.DEFINE_string("workdir", None, "Workdir with a checkpoint.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Directory to make.", required=True)


def main(argv: list[str]) -> None:
    """Exports what the flags name."""
    from lumiere_jax.open_weights.exporting import export_weights

    export_weights(_WORKDIR.value, _OUTPUT.value)
    print(_OUTPUT.value)


if __name__ == "__main__":
    errors.run(main)
