"""What is written for readers: the page, its sentences, figures and tables."""
