"""Logs whose cause is known because it was planted: simulated runs, healthy or broken, written as engines do."""
