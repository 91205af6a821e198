"""Observing a running cluster: its status, events and logs."""
