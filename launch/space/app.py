"""Serves a bundle as a Space of Hugging Face; see docs/space.md."""

import os
import runpy
import sys

sys.argv = [
    "serve",
    f"--bundle={os.environ.get('BUNDLE', 'weights/small')}",
    f"--port={os.environ.get('GRADIO_SERVER_PORT', '7860')}",
    "--host=0.0.0.0",
    "--data=/tmp/lumiere",
    "--framed_by=https://huggingface.co",
    *sys.argv[1:],
]
runpy.run_module("lumiere_jax.serve", run_name="__main__", alter_sys=True)
