# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Derived passwords."""

from __future__ import annotations

import pytest
from ansible.module_utils.kilonova.config.passwords import VERSION, derived_password
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def test_a_password_is_that_of_hkdf() -> None:
    found = derived_password("seed", "messaging", "cmp1")
    info = f"{VERSION}/messaging/cmp1".encode()
    assert found == HKDF(hashes.SHA256(), 32, salt=None, info=info).derive(b"seed").hex()


def test_a_password_depends_on_everything() -> None:
    arguments = [("seed", "a", "b"), ("other", "a", "b"), ("seed", "b", "b"), ("seed", "a", "c")]
    assert len({derived_password(*one) for one in arguments}) == 4


def test_what_cannot_be_derived_from_is_refused() -> None:
    with pytest.raises(ValueError, match="is empty"):
        derived_password("", "messaging", "cmp1")
    with pytest.raises(ValueError, match="contains a slash"):
        derived_password("seed", "a/b", "cmp1")
