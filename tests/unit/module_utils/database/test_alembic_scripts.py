# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Reading migration scripts."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils.kilonova.database.alembic_scripts import (
    heads,
    parse_revision,
    pending,
    read_revisions,
    unknown,
)


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """Two branches, the second of which depends on the first, as in Glance."""
    texts = {
        "a.py": "revision = 'a'\ndown_revision = None\n\ndef upgrade():\n    revision = 'not this one'\n",
        "sub/b.py": "import sqlalchemy\nrevision: str = 'b'\ndown_revision = ('a',)\nbranch_labels = ('expand',)\n",
        "sub/c.py": "revision = 'c'\ndown_revision = 'a'\ndepends_on = 'b'\n",
        "sub/d.py": "revision = 'd'\ndown_revision = 'b'\n",
        "__init__.py": "",
    }
    (tmp_path / "sub").mkdir()
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_scripts_are_read_without_being_run(scripts: Path) -> None:
    revisions = read_revisions(str(scripts))
    assert sorted(revisions) == ["a", "b", "c", "d"]
    assert heads(revisions) == ["c", "d"]
    assert parse_revision("import no_such_package\nrevision = 'x'\n") is not None


def test_pending_follows_dependencies(scripts: Path) -> None:
    revisions = read_revisions(str(scripts))
    assert pending(revisions, []) == {"a", "b", "c", "d"}
    assert pending(revisions, ["c"]) == {"d"}
    assert pending(revisions, ["d"]) == {"c"}
    assert pending(revisions, ["c", "d"]) == set()
    assert unknown(revisions, ["c", "future"]) == ["future"]


def test_a_directory_without_scripts_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no migration scripts"):
        read_revisions(str(tmp_path))
