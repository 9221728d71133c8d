"""Shapes, Hugging Face models of each family, their counts of parameters and FLOPs."""
