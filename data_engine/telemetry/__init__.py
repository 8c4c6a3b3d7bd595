"""Metrics of a run: typed measurements of its books, as a Prometheus text file and by OpenTelemetry."""
