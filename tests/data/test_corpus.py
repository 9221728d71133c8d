from __future__ import annotations

import pytest

from groups import data_group
from trainlarge.data.corpus import corpus
from trainlarge.errors import UserError


@pytest.mark.parametrize("name", ["imagenet", ""])
def test_unknown_name_lists_the_known_ones(name):
    with pytest.raises(UserError, match="one of stdlib, text"):
        corpus(data_group({"name": name}))
