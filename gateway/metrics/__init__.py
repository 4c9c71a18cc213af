"""What is measured: every metric declared once, counted by workers, served by the supervisor (Prometheus exposition format 0.0.4)."""
