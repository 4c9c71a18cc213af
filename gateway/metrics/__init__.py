"""What is measured: each metric is declared once, counted by workers, served by the supervisor (Prometheus text format 0.0.4)."""
