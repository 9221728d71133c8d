"""From text to what a task trains on: corpora, tokenizer, token files and blocks, tables of labelled rows."""
