"""Metrics for Prometheus: of the queue, from the database, and of this process's requests."""

import functools
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lumiere_jax.serving.queue import ClientQueue


class Metrics:
    """The metrics of one server process."""

    def __init__(self, store: ClientQueue, lease: float):
        """Reads the queue; `lease` is the seconds after which a silent worker counts as lost."""
        self._registry = CollectorRegistry()
        self._registry.register(_Queue(store, lease))
        counter = functools.partial(Counter, registry=self._registry)
        labels = ["method", "route", "code"]
        self._requests = counter("lumiere_http_requests", "Requests answered.", labels)
        self._seconds = Histogram(
            "lumiere_http_request_seconds", "From a request to the start of its answer.", ["route"],
            registry=self._registry,
        )  # fmt: skip
        self.accepted = counter("lumiere_jobs_accepted", "Jobs accepted here.", ["task"])
        self.refused = counter("lumiere_jobs_refused", "Jobs refused: the queue was full.")

    def page(self) -> bytes:
        """All of them as text."""
        return generate_latest(self._registry)

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """Counts the requests of an ASGI application.

        Not by prometheus-fastapi-instrumentator: it counts streams only when they have ended, and
        any method that a client makes up gets a label.
        """

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            begun, is_counted = time.monotonic(), False

            def count(status: int) -> None:
                nonlocal is_counted
                is_counted = True
                # The template of the route, never the path itself: names of jobs are secrets.
                route = getattr(scope.get("route"), "path", "other")
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self._requests.labels(method, route, status).inc()
                self._seconds.labels(route).observe(time.monotonic() - begun)

            async def counting_send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    count(message["status"])
                await send(message)

            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            try:
                await app(scope, receive, counting_send)
            except Exception:  # an outer layer answers it
                if not is_counted:
                    count(500)
                raise

        return counted


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class _Queue(Collector):
    """Reads the database when it is asked."""

    def __init__(self, store: ClientQueue, lease: float):
        self._store, self._lease = store, lease

    def describe(self) -> list[Metric]:
        """Nothing, since registering must not read the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The queue as it is now."""
        states = GaugeMetricFamily("lumiere_jobs", "Jobs in the database.", labels=["state"])
        for state, count in self._store.counts().items():
            states.add_metric([state], count)
        yield states
        yield GaugeMetricFamily(
            "lumiere_queue_wait_seconds", "Age of the oldest waiting job.",
            value=self._store.oldest_wait(),
        )  # fmt: skip
        yield GaugeMetricFamily(
            "lumiere_workers", "Workers that gave a sign of life.",
            value=len(self._store.living_workers(self._lease)),
        )  # fmt: skip
