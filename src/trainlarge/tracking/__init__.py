"""Mirrors of a study, rebuilt from its folder at any time."""
