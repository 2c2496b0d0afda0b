# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Data of images that cannot be read, and a store that does not answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.kilonova.cloud import image_data
from ansible.module_utils.kilonova.cloud.api import CloudError


def test_an_image_whose_data_is_gone() -> None:
    asked: list[str] = []

    def request(service: str, method: str, path: str, **options: Any) -> Any:
        asked.append(path)
        assert options["headers"] == {"Range": "bytes=0-0"}
        if path.endswith("/b/file"):
            raise CloudError("Glance", "GET /images/b/file got 404: not found in any store", 404)
        return SimpleNamespace(status_code=204 if path.endswith("/c/file") else 206, close=lambda: None)

    images = [{"id": name, "name": name, "status": "active"} for name in "abcd"]
    images.append({"id": "e", "name": "a", "status": "queued"})
    faults = image_data.image_data_faults(SimpleNamespace(request=request), images, ["a", "b", "c"])  # type: ignore[arg-type]
    assert asked == ["/images/a/file", "/images/b/file", "/images/c/file"]
    assert [("404: not found" in text, "has none" in text) for _, text, _ in faults] == [(True, False), (False, True)]
    assert not any(passes for _, _, passes in faults)


@pytest.mark.parametrize(("content", "broken"), [(b"x", False), (b"", True)])
def test_an_image_in_ceph_is_read_without_a_range(content: bytes, broken: bool) -> None:
    def request(service: str, method: str, path: str, **options: Any) -> Any:
        assert options == {"stream": True, "timeout": 30}
        chunks = iter([content] if content else [])
        return SimpleNamespace(status_code=200, close=lambda: None, iter_content=lambda size: chunks)

    images = [{"id": "a", "name": "a", "status": "active", "stores": "file,rbd"}]
    faults = image_data.image_data_faults(SimpleNamespace(request=request), images, ["a"])  # type: ignore[arg-type]
    assert ["has none" in text for _, text, _ in faults] == ([True] if broken else [])


def test_a_store_that_does_not_answer_is_named_once_and_glance_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def image(source: str, user: str) -> None:
        asked.append((source, user))
        raise image_data.rbd.Silence("the store does not answer: 1 osds down")

    monkeypatch.setattr(image_data.rbd, "image", image)
    images = [
        {"id": name, "name": "x", "status": "active", "stores": "rbd", "direct_url": f"rbd://fsid/pool/{name}/snap"}
        for name in "ab"
    ]
    faults = image_data.image_data_faults(SimpleNamespace(), images, ["x"])  # type: ignore[arg-type]
    assert faults == [("Ceph", "the store does not answer: 1 osds down", True)]
    assert asked == [("pool/a", "glance"), ("pool/b", "glance")]
