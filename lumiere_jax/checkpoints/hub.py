"""Bundles on a model hub, by `huggingface_hub`: needs the extra `.[hub]`.

(Its `ModelHubMixin` would make that package a requirement of every pipeline, and it sends a folder
that was not read back before.)
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import cast

from lumiere_jax.checkpoints import bundle
from lumiere_jax.runtime.errors import UserError

_REPOSITORY = re.compile(r"\.*[\w-][\w.-]*/\.*[\w-][\w.-]*")  # neither part is dots alone


def find(place: str | Path, *, revision: str | None = None, token: str | None = None) -> Path:
    """The folder of a bundle: itself, or what is downloaded (once) from "OWNER/NAME" of the hub.

    Raises:
      UserError: if there is neither, or it cannot be fetched.
    """
    folder = Path(place).expanduser()
    if not folder.is_dir():
        if not _REPOSITORY.fullmatch(str(place)):
            raise UserError(f"there is no folder {place}; give a bundle, or OWNER/NAME of the hub.")
        hub = _library()
        with _errors(f"there is no folder {place}, and the repository cannot be fetched"):
            folder = Path(hub.snapshot_download(str(place), revision=revision, token=token))
    if not (folder / bundle.MANIFEST).is_file():
        raise UserError(f"{place} is not a bundle: it has no {bundle.MANIFEST}.")
    return folder


def check_repository(name: str) -> None:
    """Makes sure that a name can be one of a repository; a `UserError` otherwise."""
    if not _REPOSITORY.fullmatch(name):
        raise UserError(f"{name!r} is not a repository; give OWNER/NAME.")


def push(
    folder: str | Path, repository: str, *, private: bool = True, token: str | None = None
) -> str:
    """Uploads a bundle as one commit, whose address it returns.

    Args:
      folder: the bundle; it is read first, so that no broken one is sent.
      repository: "OWNER/NAME"; it is created if there is none.
      private: whether a repository that is created is private.
      token: of the hub; None for the one that `hf auth login` keeps.

    Raises:
      UserError: if the bundle is broken, or cannot be sent.
    """
    check_repository(repository)
    folder = Path(folder).expanduser()
    for name in bundle.entries(folder):
        bundle.read(folder / name)
    api = _library().HfApi(token=token)
    with _errors(f"{folder} cannot be sent to {repository}"):
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Weights by lumiere_jax"
        )
    return str(commit.commit_url)


def _library() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            "a model hub needs the package huggingface_hub: pip install 'lumiere_jax[hub]'."
        ) from error
    return huggingface_hub


@contextlib.contextmanager
def _errors(what: str) -> Iterator[None]:
    """Turns what the network, the hub and the library may raise into one message."""
    from huggingface_hub.errors import HfHubHTTPError

    # Its bases: the error of an HTTP library, whose name depends on the version, and OSError.
    bases = cast(tuple[type[Exception], ...], HfHubHTTPError.__bases__)
    kinds: tuple[type[Exception], ...] = (*bases, ValueError)
    try:
        yield
    except kinds as error:
        message = " ".join(str(error).split())
        raise UserError(
            f"{what} ({message}); check the name, the network, and that you are logged in if it is "
            "private (hf auth login)."
        ) from error
