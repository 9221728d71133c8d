"""What the study folder says: frames, frontiers, findings, figures and the report.

Everything here only reads records, metrics and configurations; it never changes a cell.
"""
