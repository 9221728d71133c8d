"""Cells (identity, frozen), the grid that makes them, and the study folder that holds them."""
