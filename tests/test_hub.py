"""Whether the hub can be asked is known in seconds, and said in one sentence."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from huggingface_hub import constants

from testbed.hub import OFFLINE_CONFIGURATIONS, hub_obstacle, offline_error


def test_switched_off_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub_obstacle() == "HF_HUB_OFFLINE is set"


def test_a_hub_that_accepts_and_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        started = time.perf_counter()
        assert hub_obstacle(0.2) == f"{endpoint} did not answer within 0.2 s"
        assert time.perf_counter() - started < 5


def test_a_hub_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert hub_obstacle(20.0) is None
        thread.join()


def test_sentence_names_the_cache_and_what_needs_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "/somewhere")
    sentence = str(offline_error("model", "Qwen/Qwen2.5-0.5B", "no route"))
    for word in (
        "model 'Qwen/Qwen2.5-0.5B'",
        "offline (no route)",
        "HF_HOME names (/somewhere)",
        *OFFLINE_CONFIGURATIONS,
    ):
        assert word in sentence
