"""How workers and server log."""

import logging


def plainly() -> None:
    """Writes each message to stderr as one line with time and process."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(processName)s: %(message)s"))
    logger = logging.getLogger("lumiere_jax.serving")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
