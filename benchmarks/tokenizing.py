"""Preparing a text against ``datasets``: seconds from the files to token files, both sides taking turns.

    python benchmarks/tokenizing.py [--quick] [--rounds 2] [--megabytes 100] [--json FILE]

Both sides read the same Parquet files (Wikipedia and books of ``../shared/data/prose``, as many MB as asked for) and
encode them by a BPE tokenizer of 4,096 entries. *Ours* is ``prepare``: it trains the tokenizer, too, makes a
fingerprint of the text, counts repeats, blank rows, long documents and what training and validation have in common, and
writes the token files. *Theirs* is ``datasets`` with the finished tokenizer, ``map(batched=True)`` in as many processes
as there are cores: it reads, encodes and writes its own cache.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, disable_progress_bars, load_dataset
from transformers import PreTrainedTokenizerFast

from trainlarge.config.data import DataConfig
from trainlarge.data.prepare import prepare
from trainlarge.data.tokenizer import hugging_face_tokenizer

PROSE = Path(__file__).resolve().parents[2] / "shared" / "data" / "prose"
VOCABULARY = 4096


@dataclass(frozen=True)
class Row:
    """One comparison, as ``--json`` writes it."""

    name: str
    ours: float
    theirs: float
    ratio: float
    unit: str
    device: str


def main() -> None:
    """Make the text, let both sides take turns, print medians and the median ratio."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        path, size = Path(folder), options.megabytes * 10**6
        train = text_of_size(path / "train.parquet", size)
        validation = PROSE / "wiki-validation.parquet"
        files = {"files": (str(train),), "validation_files": (str(validation),)}
        data = DataConfig(name="text", vocab_size=VOCABULARY, **files)  # type: ignore[arg-type]
        seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
        for number in range(options.rounds):
            began = time.perf_counter()
            prepared = prepare(data, path / f"ours_{number}")
            seconds["ours"].append(time.perf_counter() - began)
            tokenizer = hugging_face_tokenizer(prepared.tokenizer_file)
            began = time.perf_counter()
            encoded = theirs(train, tokenizer, path / f"theirs_{number}")
            seconds["theirs"].append(time.perf_counter() - began)
            check(encoded, len(prepared.train))
    row = Row(
        f"{options.megabytes} MB",
        median(seconds["ours"]),
        median(seconds["theirs"]),
        median(their / our for our, their in zip(seconds["ours"], seconds["theirs"], strict=True)),
        "s",
        f"{os.cpu_count()} cores",
    )
    print(f"{row.name}: ours {row.ours:.1f} s, datasets {row.theirs:.1f} s, ratio {row.ratio:.2f}, {row.device}")
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(row)], indent=2))


def text_of_size(path: Path, size: int) -> Path:
    """A Parquet file with a column ``text`` of at least ``size`` bytes in UTF-8."""
    documents, total = [], 0
    for text in endless_prose():
        documents.append(text)
        total += len(text.encode())
        if total >= size:
            break
    pq.write_table(pa.table({"text": documents}), path)
    return path


def endless_prose() -> Iterator[str]:
    """The documents, again and again; what is read again has a number before it, so that it is no repeat."""
    for turn in count():
        for name in ("wiki", "books"):
            for text in pq.read_table(PROSE / f"{name}-train.parquet", columns=["text"])["text"].to_pylist():
                yield f"{turn} {text}" if turn else text


def theirs(train: Path, tokenizer: PreTrainedTokenizerFast, cache: Path) -> Dataset:
    """The data set, encoded as the examples of ``transformers`` do it."""
    raw = load_dataset("parquet", data_files=str(train), split="train", cache_dir=str(cache))
    encoded: Dataset = raw.map(
        lambda rows: {"input_ids": tokenizer(rows["text"], add_special_tokens=False)["input_ids"]},
        batched=True,
        num_proc=os.cpu_count(),
        remove_columns=raw.column_names,
    )
    return encoded


def check(encoded: Dataset, tokens: int) -> None:
    """Both sides have the same tokens; ours ends each document with one more."""
    tokens_of_theirs = sum(len(ids) for batch in encoded.iter(1000) for ids in batch["input_ids"]) + len(encoded)
    if tokens_of_theirs != tokens:
        raise SystemExit(f"the sides disagree: {tokens} tokens of ours, {tokens_of_theirs} of theirs")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="turns of each side")
    parser.add_argument("--megabytes", type=int, default=100, help="size of the text")
    parser.add_argument("--quick", action="store_true", help="2 MB, once")
    parser.add_argument("--json", metavar="FILE", help="write the rows")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.megabytes = 1, 2
    disable_progress_bars()
    return options


if __name__ == "__main__":
    main()
