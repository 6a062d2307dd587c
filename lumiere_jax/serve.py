"""Serves a bundle over HTTP: `python -m lumiere_jax.serve --bundle=DIR`; see docs/serving.md.

Jobs wait in a database, and workers make them: processes on this machine, and with PostgreSQL on
any others. Ctrl-C or SIGTERM ends it; jobs that run then go back to the queue.
"""

import os
from pathlib import Path

from absl import flags

from lumiere_jax.runtime import errors
from lumiere_jax.runtime.errors import UserError

_BUNDLE = flags.DEFINE_string("bundle", None, "Weights: a folder, or OWNER/NAME of a model hub.")
_DISTILLED = flags.DEFINE_bool("distilled", False, "Take the stages of few steps.")
_TEXT_FOLDER = flags.DEFINE_string("text_folder", None, "Folder of the T5 encoder, if it is moved.")
_DATA = flags.DEFINE_string("data", "serve-data", "Folder of the queue and of temporary files.")
_DATABASE = flags.DEFINE_string(
    "database",
    None,
    "postgresql://USER:PASSWORD@HOST/NAME, or sqlite:///FILE; else LUMIERE_DATABASE of the "
    "environment, else SQLite in --data.",
)
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to serve at; 0.0.0.0 for every one.")
_PORT = flags.DEFINE_integer("port", 8000, "Port to serve at; 0 for any.", 0, 65535)
_WORKERS = flags.DEFINE_integer("workers", 1, "Processes that make videos; 0: only serve.", 0, 64)
_WORKER_ONLY = flags.DEFINE_bool("worker_only", False, "Only make videos, without serving.")
_API_KEY_FILE = flags.DEFINE_string(
    "api_key_file", None, "Keys, one a line, of which submitting and cancelling need one."
)
_ALLOWED_HOSTS = flags.DEFINE_list(
    "allowed_hosts",
    [],
    "Names that clients may call the server by beside localhost, such as that of a proxy; without "
    "them any, but for a server without keys at the loopback.",
)
_MAX_BATCH = flags.DEFINE_integer("max_batch", 4, "Jobs made at once.", 1, 1024)
_BATCH_WAIT = flags.DEFINE_float("batch_wait", 0.2, "Seconds a job waits for others like it.", 0, 5)
_JOB_TIMEOUT = flags.DEFINE_float("job_timeout", 1800, "Seconds that a job may take.", 1)
_LEASE = flags.DEFINE_float(
    "lease", 30, "Seconds without a sign of life after which a worker is taken for lost.", 6
)
_KEEP_HOURS = flags.DEFINE_float("keep_hours", 24, "Hours that a job is kept after its end.", 0)
_MAX_QUEUE = flags.DEFINE_integer("max_queue", 100, "Jobs that may wait.", 1)
_MAX_PROMPT = flags.DEFINE_integer("max_prompt", 1000, "Characters of a prompt.", 1)
_MAX_FRAMES = flags.DEFINE_integer("max_frames", 160, "Frames of a video.", 1)
_MAX_STEPS = flags.DEFINE_integer("max_steps", 250, "Denoising steps of a stage.", 1)
_MAX_UPLOAD_MB = flags.DEFINE_float("max_upload_mb", 32, "MiB of a request.", 0.01)
_MAX_MEGAPIXELS = flags.DEFINE_float(
    "max_megapixels", 16, "Million pixels of a picture or frame that is uploaded.", 0.001
)
_MAX_SECONDS = flags.DEFINE_float("max_seconds", 60, "Duration of a video that is uploaded.", 0.1)
flags.mark_flag_as_required("bundle")


def main(argv: list[str]) -> None:
    """Serves."""
    del argv
    if _WORKER_ONLY.value and not _WORKERS.value:
        raise UserError("--worker_only with --workers=0 would do nothing; give 1 or more.")
    try:
        from lumiere_jax.serving import app, command
    except ImportError as error:
        raise UserError(
            f"serving needs {error.name}: install the extra, pip install 'lumiere_jax[serve]'"
        ) from error
    from lumiere_jax.checkpoints import hub
    from lumiere_jax.serving import log
    from lumiere_jax.serving.settings import Limits, Settings

    del app
    log.plainly()
    data = Path(_DATA.value).absolute()
    bundle = hub.find(_BUNDLE.value).absolute()
    with command.data_folder(data) as scratch:
        database = _DATABASE.value or os.environ.get("LUMIERE_DATABASE")
        settings = Settings(
            bundle=bundle,
            database=database or f"sqlite:///{data / 'queue.sqlite'}",
            scratch=scratch,
            is_alone=not database,  # the folder is locked, and the queue is in it
            distilled=_DISTILLED.value,
            text_folder=_TEXT_FOLDER.value,
            max_batch=_MAX_BATCH.value,
            batch_wait=_BATCH_WAIT.value,
            job_timeout=_JOB_TIMEOUT.value,
            lease=_LEASE.value,
            keep=_KEEP_HOURS.value * 3600,
            limits=Limits(
                queue=_MAX_QUEUE.value,
                prompt=_MAX_PROMPT.value,
                frames=_MAX_FRAMES.value,
                steps=_MAX_STEPS.value,
                upload_bytes=int(_MAX_UPLOAD_MB.value * 2**20),
                pixels=int(_MAX_MEGAPIXELS.value * 1e6),
                seconds=_MAX_SECONDS.value,
            ),
        )
        if _WORKER_ONLY.value:
            command.work(settings, _WORKERS.value)
        else:
            command.serve(
                settings,
                num_workers=_WORKERS.value,
                host=_HOST.value,
                port=_PORT.value,
                key_file=_API_KEY_FILE.value,
                allowed_hosts=_ALLOWED_HOSTS.value,
            )


if __name__ == "__main__":
    errors.run(main)
