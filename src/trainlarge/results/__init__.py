"""What the study folder says: frames, frontiers, findings, figures, the report, and the mirror in Weights & Biases.

Everything here only reads records, metrics and configurations; it never changes a cell.
"""
