import pytest


@pytest.fixture(autouse=True)
def own_memory(tmp_path, monkeypatch):
    """Nothing is remembered from one test to the next, or in the tester's own folders."""
    monkeypatch.setenv("LYRA_CACHE", str(tmp_path / "remembered"))
    return tmp_path / "remembered"
