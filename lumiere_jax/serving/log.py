"""How workers and server say what happens."""

import logging


def plainly() -> None:
    """Puts it on stderr, a line each with its time and process."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(processName)s: %(message)s"))
    logger = logging.getLogger("lumiere_jax.serving")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
