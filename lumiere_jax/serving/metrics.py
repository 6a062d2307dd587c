"""Numbers for Prometheus: of the queue, from the database, and of the requests to this process."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from lumiere_jax.serving.store import Store


class Metrics:
    """The metrics of one process of the interface."""

    def __init__(self, store: Store, lease: float):
        """Takes the queue, and the seconds after which a worker is taken for lost."""
        self._registry = CollectorRegistry()
        self._registry.register(_Queue(store, lease))
        labels = ["method", "route", "code"]
        self._requests = Counter(
            "lumiere_http_requests", "Requests answered.", labels, registry=self._registry
        )
        self._seconds = Histogram(
            "lumiere_http_request_seconds",
            "From a request to the begin of its answer.",
            ["route"],
            registry=self._registry,
        )
        self.accepted = Counter(
            "lumiere_jobs_accepted", "Jobs accepted here.", ["task"], registry=self._registry
        )
        self.refused = Counter(
            "lumiere_jobs_refused", "Jobs refused: the queue was full.", registry=self._registry
        )

    def page(self) -> bytes:
        """All of them as text."""
        return generate_latest(self._registry)

    def middleware(self, app: Callable[..., Any]) -> Callable[..., Any]:
        """Counts the requests of an ASGI application."""

        async def counted(scope: dict, receive: Callable, send: Callable) -> None:
            begun, is_counted = time.monotonic(), False

            def count(status: int) -> None:
                nonlocal is_counted
                is_counted = True
                # A template, never the path itself: names of jobs are secrets.
                route = getattr(scope.get("route"), "path", "other")
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self._requests.labels(method, route, status).inc()
                self._seconds.labels(route).observe(time.monotonic() - begun)

            async def counting_send(message: dict) -> None:
                if message["type"] == "http.response.start":
                    count(message["status"])
                await send(message)

            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            try:
                await app(scope, receive, counting_send)
            except Exception:  # answered further out
                if not is_counted:
                    count(500)
                raise

        return counted


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class _Queue:
    """Reads the database when it is asked."""

    def __init__(self, store: Store, lease: float):
        self._store, self._lease = store, lease

    def describe(self) -> list[Metric]:
        """Nothing: registering must not read the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The queue as it is."""
        states = GaugeMetricFamily("lumiere_jobs", "Jobs that are kept.", labels=["state"])
        for state, count in self._store.counts().items():
            states.add_metric([state], count)
        yield states
        yield GaugeMetricFamily(
            "lumiere_queue_wait_seconds",
            "Age of the oldest job that waits.",
            value=self._store.oldest_wait(),
        )
        yield GaugeMetricFamily(
            "lumiere_workers",
            "Workers that gave a sign of life.",
            value=len(self._store.living_workers(self._lease)),
        )
