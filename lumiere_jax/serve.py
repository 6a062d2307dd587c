"""Serves a bundle over HTTP: `python -m lumiere_jax.serve --bundle=DIR`; see docs/serving.md.

Jobs wait in a database, and workers make them: processes on this machine, and with PostgreSQL on
any others. Ctrl-C or SIGTERM ends it; jobs that run then go back to the queue.
"""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lumiere_jax.runtime import errors
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.options import declared, define_flag
from lumiere_jax.runtime.path_flags import define_path
from lumiere_jax.serving.settings import Limits, Settings

# Of the extra `serve`; they are imported later, while the workers start.
_PACKAGES = ("fastapi", "fastapi_offline", "httpx", "prometheus_client", "python_multipart",
             "sqlalchemy", "uvicorn")  # fmt: skip

_BUNDLE = define_path(
    "bundle", None, "Weights: a folder, or OWNER/NAME of a model hub.", required=True
)
_DATA = define_path("data", "serve-data", "Folder of the queue and of temporary files.")
_DATABASE = flags.DEFINE_string(
    "database",
    None,
    "postgresql://USER:PASSWORD@HOST/NAME or sqlite:///FILE. Without it, LUMIERE_DATABASE of the "
    "environment; without that, SQLite in --data.",
)
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to serve at; 0.0.0.0 for all.")
_PORT = flags.DEFINE_integer("port", 8000, "Port to serve at; 0 for any.", 0, 65535)
_WORKERS = flags.DEFINE_integer(
    "workers", 1, "Processes that make videos; 0 for a server alone.", 0, 64
)
_WORKER_ONLY = flags.DEFINE_bool("worker_only", False, "Only make videos; do not serve.")
_API_KEY_FILE = define_path(
    "api_key_file", None, "File of API keys, one per line; submitting and cancelling need one."
)
_ALLOWED_HOSTS = flags.DEFINE_list(
    "allowed_hosts",
    [],
    "Names that clients may call the server by, beside localhost, such as that of a proxy. Without "
    "it any name is allowed, except for a server without keys at the loopback address.",
)
_TRUSTED_PROXIES = flags.DEFINE_list(
    "trusted_proxies",
    [],
    "Addresses or networks of proxies, which say by X-Forwarded-For who their clients are.",
)
_KEEP_HOURS = flags.DEFINE_float("keep_hours", 24, "Hours that a job is kept after its end.", 0)
_MAX_UPLOAD_MB = flags.DEFINE_float("max_upload_mb", 32, "Size of a request in MiB.", 0.01)
_MAX_MEGAPIXELS = flags.DEFINE_float(
    "max_megapixels", 16, "Million pixels of an uploaded picture or frame.", 0.001
)
_SETTINGS, _LIMITS = (
    {field: define_flag(option) for field, option in declared(kind).items()}
    for kind in (Settings, Limits)
)


def main(argv: Sequence[str]) -> None:
    """Serves."""
    if _WORKER_ONLY.value and not _WORKERS.value:
        raise UserError("--worker_only with --workers=0 would do nothing; give 1 or more.")
    for name in _PACKAGES:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"serving needs {name}: install the extra, pip install 'lumiere_jax[serve]'"
            )
    from lumiere_jax.serving import command
    from lumiere_jax.serving.log import log_plainly

    log_plainly()
    data, bundle = Path(_DATA.value).absolute(), _bundle()
    with command.data_folder(data) as scratch:
        settings = _settings(bundle, data, scratch)
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
                trusted_proxies=_TRUSTED_PROXIES.value,
            )


def _bundle() -> Path:
    folder = Path(str(_BUNDLE.value)).expanduser()
    if not folder.is_dir():
        from lumiere_jax.checkpoints import hub  # imports JAX, as workers can do meanwhile

        folder = hub.find(str(_BUNDLE.value))
    return folder.absolute()


def _settings(bundle: Path, data: Path, scratch: Path) -> Settings:
    database = _DATABASE.value or os.environ.get("LUMIERE_DATABASE")
    return Settings(
        bundle=bundle,
        database=database or f"sqlite:///{data / 'queue.sqlite'}",
        scratch=scratch,
        model=Path(str(_BUNDLE.value)).name,
        is_alone=not database,  # the folder is locked, and the queue is in it
        keep=_KEEP_HOURS.value * 3600,
        limits=Limits(
            upload_bytes=int(_MAX_UPLOAD_MB.value * 2**20),
            pixels=int(_MAX_MEGAPIXELS.value * 1e6),
            **{field: flag.value for field, flag in _LIMITS.items()},
        ),
        **{field: flag.value for field, flag in _SETTINGS.items()},
    )


if __name__ == "__main__":
    errors.run(main)
