"""What a model learns and how it is scored: one file per task behind the interface of ``task.py``."""
