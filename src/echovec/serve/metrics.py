"""Metrics: what a server counts, in Prometheus' form. One registry for each application."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
SHARES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1, 1.5, 2)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.requests = Counter(
            "echovec_requests", "Answers, by route and status.", ["route", "status"], registry=own
        )
        self.seconds = Histogram(
            "echovec_request_seconds",
            "From the head of a request to its answer.",
            ["route"],
            buckets=SECONDS,
            registry=own,
        )
        self.running = Gauge("echovec_requests_running", "Requests at once.", registry=own)
        self.waiting_tokens = Gauge(
            "echovec_queue_tokens", "Tokens of prompts that wait for a model.", registry=own
        )
        self.waiting_texts = Gauge(
            "echovec_queue_texts", "Texts that wait for a model.", registry=own
        )
        self.tokens = Counter(
            "echovec_tokens", "Tokens of prompts that went through a model.", registry=own
        )
        self.model_seconds = Counter(
            "echovec_model_seconds",
            "Time of batches in models; of those that run at once each counts.",
            registry=own,
        )
        self.batch_fill = Histogram(
            "echovec_batch_fill",
            "Tokens of a batch, as a share of what it may hold.",
            buckets=SHARES,
            registry=own,
        )
        self.batch_texts = Histogram(
            "echovec_batch_texts",
            "Texts of a batch.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
            registry=own,
        )
        self.truncated = Counter("echovec_truncated_texts", "Texts that were cut.", registry=own)
        self.shared = Counter(
            "echovec_shared_texts", "Texts computed for another request at once.", registry=own
        )
        self.dropped = Counter(
            "echovec_dropped_texts", "Texts dropped, their clients being gone.", registry=own
        )
        self.cached = Counter(
            "echovec_cached_texts", "Texts whose vectors were on disk.", registry=own
        )
        self.failed = Counter("echovec_failed_texts", "Texts without a vector.", registry=own)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return bytes(generate_latest(self.registry))
