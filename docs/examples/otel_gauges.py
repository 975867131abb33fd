"""The newest sample as OpenTelemetry gauges (pip install "shm-monitor[otel]" opentelemetry-sdk)."""

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

from shm_monitor.integrations.opentelemetry import instrument

# An OTLPMetricExporter in place of this one sends them to a collector.
provider = MeterProvider([PeriodicExportingMetricReader(ConsoleMetricExporter(), export_interval_millis=60_000)])
instrument(provider=provider)
provider.force_flush()
provider.shutdown()
