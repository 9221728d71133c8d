"""Runs jobs in processes: on this machine, or on a cluster."""
