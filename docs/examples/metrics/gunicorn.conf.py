"""gunicorn with metrics for Prometheus: each worker answers at a port of its own."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import start_http_server

workers = 2
FIRST_PORT = int(os.environ.get("METRICS_PORT", "9464"))


def post_fork(server: Any, worker: Any) -> None:
    """Measure in each worker: threads and numbers of the parent would not come along."""
    metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()]))
    for port in range(FIRST_PORT, FIRST_PORT + 2 * workers):  # one that is restarted needs another
        with contextlib.suppress(OSError):  # taken by another worker
            start_http_server(port, "127.0.0.1")
            return
