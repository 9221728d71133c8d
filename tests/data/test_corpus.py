from __future__ import annotations

import pytest

from trainlarge.data.corpus import corpus
from trainlarge.errors import UserError


@pytest.mark.parametrize("name", ["imagenet", None])
def test_unknown_name_lists_the_known_ones(name):
    with pytest.raises(UserError, match="one of stdlib, text"):
        corpus({"name": name})
