"""Corpora to tokenizer to token file to blocks, masks and evaluation sets."""
