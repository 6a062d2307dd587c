"""An application without a server, and its queue, for tests that play the worker."""

from fastapi.testclient import TestClient

from lumiere_jax.serving.app import make_app
from lumiere_jax.serving.database import Database
from lumiere_jax.serving.leases import Leases
from lumiere_jax.serving.model import Models
from lumiere_jax.serving.settings import Limits, Settings
from lumiere_jax.serving.store import Store
from tests.serving.live import PROMPT

JOB = {"task": "text_to_video", "prompt": PROMPT}
LIMITS = Limits(queue=4, prompt=50, frames=20, steps=9, upload_bytes=60_000, seconds=4, streams=1)


class Site:
    """The application and its queue; `limits` change those above."""

    def __init__(self, bundle, folder, keys=(), hosts=None, **limits):
        self.settings = Settings(
            bundle=bundle,
            database=f"sqlite:///{folder / 'q'}",
            scratch=folder,
            limits=Limits(**{**LIMITS.__dict__, **limits}),
        )
        self.database = Database(self.settings.database)
        self.store = Store(self.database)
        self.worker = Leases(self.database, "w", 30)
        models = Models.read(bundle)
        self.app = make_app(self.store, models, self.settings, keys, hosts=hosts)
        self.client = TestClient(
            self.app, base_url="http://x/api/v1", raise_server_exceptions=False
        )

    def post(self, files=None, headers=None, **fields):
        return self.client.post("/jobs", data=JOB | fields, files=files, headers=headers)

    def done(self, content=b"0123456789"):
        job = self.post().json()["id"]
        assert self.worker.finish(self.worker.claim(), content)
        return job
