"""Statements of a paper as code, judged on a study."""
