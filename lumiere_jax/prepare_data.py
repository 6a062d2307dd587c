"""Prepares real videos for training: shards of filtered, captioned clips at one rate and size.

    python -m lumiere_jax.prepare_data --source=VIDEOS --output=DIR --config=configs/stunet.py:full

VIDEOS is a folder, read as the data source `video_folder` reads it, or a manifest: a CSV, JSONL or
Parquet file with columns path, caption and, if wanted, start and end in seconds. Frames, rate and
size of the clips are those of `config.data`. A run that was stopped or killed is continued by the
same command. DIR/report.txt names every file and clip that was left out, and why.
"""

import shlex

from absl import flags
from ml_collections import config_flags

from lumiere_jax.runtime import config_file, errors
from lumiere_jax.runtime.devices import num_cores
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.path_flags import define_path

_SOURCE = define_path(
    "source", None, "Folder of videos, or manifest: CSV, JSONL, Parquet.", required=True
)
_OUTPUT = define_path("output", None, "Folder to write; created if missing.", required=True)
_CONFIG = config_file.define_flag(
    "Config that will train on the clips: its data and text decide what is stored."
)
_WORKERS = flags.DEFINE_integer(
    "workers", None, "Processes that decode; by default one per core.", lower_bound=1
)
_TEST_FRACTION = flags.DEFINE_float(
    "test_fraction",
    0.01,
    "Share for the split test of videos whose split no folder and no column tells, by a hash.",
)
_MAX_CLIPS = flags.DEFINE_integer(
    "max_clips_per_video", 0, "Clips per video at most, the first ones; 0 for all.", 0
)
_VIDEOS_PER_SHARD = flags.DEFINE_integer(
    "videos_per_shard", 0, "Videos whose clips share a file; 0 chooses by the number of videos.", 0
)
_MIN_BRIGHTNESS = flags.DEFINE_float(
    "min_brightness", 16.0, "Lowest mean luma of a clip, in levels of 0 to 255; 0 keeps dark clips."
)
_MIN_MOTION = flags.DEFINE_float(
    "min_motion",
    0.5,
    "Lowest mean change between frames, in levels; 0 keeps static clips, if data.max_repeats is 1.",
)
_CUT_THRESHOLD = flags.DEFINE_float(
    "cut_threshold", 40.0, "Lowest score of a shot cut, in levels; 0 keeps clips with cuts."
)
_EMBED_TEXT = flags.DEFINE_bool(
    "embed_text", False, "Also store embeddings of the captions, by the encoder of config.text."
)
_BEAM = flags.DEFINE_bool(
    "beam", False, "Run as an Apache Beam pipeline; needs the extra: pip install lumiere_jax[beam]."
)
_BEAM_ARGS = flags.DEFINE_string(
    "beam_args", "", "Flags of Beam in one string, such as '--runner=DataflowRunner --region=R'."
)
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> None:
    """Prepares what the flags describe, or what is left of it."""
    del argv
    from lumiere_jax import text
    from lumiere_jax.data.limits import Limits
    from lumiere_jax.data.pixels import as_size
    from lumiere_jax.data.prepared_format import Settings, Thresholds
    from lumiere_jax.preparation import report, run

    _refuse_ignored_flags()
    config = _CONFIG.value
    encoder = text.create(config.text) if _EMBED_TEXT.value else None
    settings = Settings(
        num_frames=config.data.num_frames,
        resolution=as_size(config.data.resolution),
        fps=config.data.fps,
        max_clips_per_video=_MAX_CLIPS.value,
        test_fraction=_TEST_FRACTION.value,
        videos_per_shard=_VIDEOS_PER_SHARD.value,
        thresholds=Thresholds(
            brightness=_MIN_BRIGHTNESS.value, motion=_MIN_MOTION.value, cut=_CUT_THRESHOLD.value
        ),
        limits=Limits(
            min_size=config.data.min_size,
            min_rate=config.data.min_rate,
            max_repeats=config.data.max_repeats,
        ),
        text_fingerprint=encoder.fingerprint if encoder else None,
    )
    with run.begun(_SOURCE.value, _OUTPUT.value, settings) as plan:
        if _BEAM.value:
            from lumiere_jax.preparation import beam_engine

            text_config = config.text.to_dict() if encoder else None
            beam_engine.prepare(plan, text_config, _BEAM_ARGS.value)
        else:
            run.prepare(plan, encoder, _WORKERS.value or num_cores())
    print(report.describe(_OUTPUT.value))
    print(f"every file and clip that was left out: {_OUTPUT.value}/report.txt")
    print(f"next: {_next_command()}")


def _refuse_ignored_flags() -> None:
    """Refuses what would have no effect."""
    if _BEAM.value and _WORKERS.present:
        raise UserError(
            "--workers is not for --beam, whose runner has flags of its own: --beam_args"
        )
    if _BEAM_ARGS.present and not _BEAM.value:
        raise UserError("--beam_args needs --beam")


def _next_command() -> str:
    """How to train on what was prepared, with the config that it was prepared for."""
    flag = flags.FLAGS["config"]
    overrides = config_flags.get_override_values(flag)
    overrides |= {"data.name": "prepared", "data.folder": _OUTPUT.value}
    words = ["python", "-m", "lumiere_jax.main", "--workdir=WORKDIR"]
    words.append(f"--config={config_flags.get_config_filename(flag)}")
    return shlex.join(words + [f"--config.{name}={value}" for name, value in overrides.items()])


if __name__ == "__main__":
    errors.run(main)
