"""What a study shows: frames, frontiers, figures, findings and the report, all read from the study folder alone.

    from trainlarge.results import frontier, load_study

    study = load_study("quickstart")
    frontier(study.compression, x="file_bytes", y="loss")     # the models that no other model beats on both axes

Nothing here changes a cell, and nothing needs torch. Names are imported on first use. ``__init__.pyi`` lists them with
their modules: type checkers read it, and so does this file.
"""

from __future__ import annotations

from trainlarge.lazy_names import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
