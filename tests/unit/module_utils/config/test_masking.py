# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json

from ansible.module_utils.kilonova.config.masking import MASK, mask, mask_predecessors, secret_forms

SECRET = "p@:/%$#'\"\\ w"


def test_masking() -> None:
    assert mask("a=abc ab", ["ab", "abc"]) == f"a={MASK} {MASK}"
    assert mask('"default_pass_token": "x"\nkey = x\n', []) == f'"default_pass_token": {MASK}\nkey = x\n'
    assert mask("my_secret =\nnext = 1\n", []) == "my_secret =\nnext = 1\n"
    key = "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n"
    assert mask(key.format("MC4C\nAQAw"), []) == key.format(MASK)
    assert mask_predecessors("stats auth a:old b\nother\n", "stats auth a:new b\n", ["new"]) == (
        f"stats auth a:{MASK} b\nother\n"
    )


def test_secret_forms_cover_how_files_write_them() -> None:
    forms = secret_forms(SECRET)
    assert forms[0] == SECRET
    assert "p%40%3A%2F%25%24%23%27%22%5C%20w" in forms  # in a URL
    assert SECRET.replace("$", "$$") in forms and SECRET.replace("$", "\\$") in forms  # oslo.config
    assert json.dumps(SECRET)[1:-1] in forms
    assert secret_forms("") == []
