from __future__ import annotations

import pytest

from analysis.documents import documents, render


@pytest.mark.parametrize("name", documents.names())
def test_generated_documents_are_current(name: str) -> None:
    path, content = render(name)
    assert path.read_text(encoding="utf-8") == content, "run: python -m analysis.documents"
