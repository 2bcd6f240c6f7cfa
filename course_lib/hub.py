"""The model and data hub: asked only where it can be reached, so that a missing network is known at once."""

from __future__ import annotations

import functools
import os
import queue
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

SECONDS = 2.0


@functools.cache
def is_reachable() -> bool:
    """Whether the hub, or the proxy before it, accepts a connection; asked once a process."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    endpoint = urlsplit(constants.ENDPOINT)
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy") or os.environ.get("ALL_PROXY")
    address = urlsplit(proxy if "//" in proxy else f"//{proxy}") if proxy else endpoint
    port = address.port or (443 if address.scheme == "https" else 80)
    answer: queue.SimpleQueue[bool] = queue.SimpleQueue()  # from a thread, for no time-out holds while names are asked
    threading.Thread(target=lambda: answer.put(_connects(address.hostname, port)), daemon=True).start()
    try:
        return answer.get(timeout=SECONDS)
    except queue.Empty:
        return False


def _connects(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=SECONDS):
            return True
    except OSError:
        return False


def looks_like_hub_name(name: str) -> bool:
    """Whether a name is OWNER/NAME and nothing of this machine."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None and not Path(name).exists()


def is_cached(name: str) -> bool:
    """Whether a model's config came from the hub before."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)


@contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """Where the hub cannot be reached, tell its libraries so: they use what they have cached, and do not try again."""
    import datasets
    from huggingface_hub import constants

    if is_reachable():
        yield
        return
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
