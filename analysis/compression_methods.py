"""Write docs/compression_methods.md: what each method of compression stores and costs, measured.

    trainlarge run compression_methods && python analysis/compression_methods.py

Reads the study ``compression_methods``, or the one that is named, and nothing else.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path
from typing import Any

from trainlarge.compression.stored.packing import packed_header
from trainlarge.config.recipe import Recipe
from trainlarge.results import find_study
from trainlarge.sweep.store import CellFolder

TARGET = Path(__file__).resolve().parents[1] / "docs" / "compression_methods.md"
ENCODINGS = {
    "dense": "floats",
    "codes": "codes",
    "sparse": "mask, floats that are left",
    "sparse_codes": "mask, codes that are left",
}
HEADER = """# What each method of compression stores and costs

Made by `trainlarge run compression_methods` and `python analysis/compression_methods.py` on one checkpoint, {model}
(dense loss {loss:.3f} nats per masked token, {bytes:,} bytes as fp32), on {device}. Only `recover` trains; `iterative`,
`gradual`, `movement`, `soft_movement` and `adapt` prune while it does, see [recovery.md](recovery.md).

- *loss*: increase against the dense checkpoint, with the standard error of the paired difference over the {documents}
  documents of the evaluation set.
- *file*: the packed file as a share of the dense one; *ideal*: only the bits of the weights that are not zero.
- *seconds*: compressing, evaluating, packing and writing one recipe; what recipes share is in the first of
  them.{shared}
- Where the *vocabulary* is cut, removed tokens are read and predicted as the unknown one: another task, whose loss
  cannot be compared with the others.

Two forms of uniform quantization are compared. `uniform` has a whole-number zero point z and widens the range to hold
0: w' = step (code - z), step = (max - min) / (2^bits - 1), z = round(-min / step). `min_max` is the quantizer of Li et
al. 2020: w' = step code + min, with the same step over the range as it is; 0 is no value of it, so zeros are left out
of the file by an index. More on both, and on files that are entropy-coded: [quantizers.md](quantizers.md).

It is one checkpoint of one seed: which method is best here need not be best for yours.

"""


def main() -> None:
    """Read the study and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("study", nargs="?", default="compression_methods")
    parser.add_argument("--to", type=Path, default=TARGET)
    options = parser.parse_args()
    study = find_study(options.study)
    done = [folder for folder in study.folders("compress") if folder.is_done()]
    records: dict[CellFolder, dict[str, Any]] = {folder: folder.record_data() for folder in done}
    [dense] = [record for record in records.values() if record["description"] == "dense"]
    parent = study.folder("train", dense["parent"]).record_data()
    options.to.write_text(_header(dense, parent, records) + "\n".join(_tables(records, dense)) + "\n", encoding="utf-8")
    print(options.to)


def _header(dense: dict[str, Any], parent: dict[str, Any], records: dict[CellFolder, dict[str, Any]]) -> str:
    arch, environment = parent["config"]["arch"], dense["environment"]
    return HEADER.format(
        model=f"{arch['name']} {arch['width']} x {arch['depth']} after {parent['config']['budget']}",
        loss=dense["dense_loss"],
        bytes=dense["file_bytes"],
        documents=dense["data"]["evaluation_documents"],
        device=f"{environment['device_name']} with {environment['threads']} threads",
        shared=" The machine was shared with other work." if _any_shared(records) else "",
    )


def _any_shared(records: dict[CellFolder, dict[str, Any]]) -> bool:
    return any(record["environment"]["shared"] for record in records.values())


def _tables(records: dict[CellFolder, dict[str, Any]], dense: dict[str, Any]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for folder, record in sorted(records.items(), key=lambda item: _order(item[1])):
        groups.setdefault(_group(record), []).append(_row(folder, record, dense))
    head = (
        "| recipe | source | stored as | loss | ideal | file | seconds |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    return [f"## {name}\n\n{head}\n" + "\n".join(rows) + "\n" for name, rows in groups.items()]


def _order(record: dict[str, Any]) -> tuple[int, str, int]:
    return len(record["order"]), _group(record), -record["file_bytes"]


def _group(record: dict[str, Any]) -> str:
    slots = record["order"]
    return {0: "dense", 1: " ".join(slots)}.get(len(slots), "compound recipes")


def _row(folder: CellFolder, record: dict[str, Any], dense: dict[str, Any]) -> str:
    cells = [
        record["description"],
        _source(record),
        _stored(folder),
        f"{record['loss_increase']:+.3f} ± {record['increase_document_standard_error']:.3f}",
        f"{record['ideal_bytes'] / dense['ideal_bytes']:.1%}",
        f"{record['file_bytes'] / dense['file_bytes']:.1%}",
        f"{record['seconds']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _source(record: dict[str, Any]) -> str:
    """The papers that the descriptions of the recipe's methods name."""
    text = " ".join(type(step).__doc__ or "" for step in Recipe.from_json(record["recipe"]).steps)
    papers = dict.fromkeys(re.findall(r"arXiv\s+(\d{4}\.\d{4,5})", text))
    return ", ".join(f"[{paper}](https://arxiv.org/abs/{paper})" for paper in papers) or "–"


def _stored(folder: CellFolder) -> str:
    """How most matrices are written in the packed file."""
    notes = packed_header(folder.packed).tensors.values()
    ways = Counter(str(note["encoding"]) for note in notes)
    [(way, _)] = ways.most_common(1) or [("dense", 0)]
    return ENCODINGS.get(way, way.replace("_", " "))


if __name__ == "__main__":
    main()
