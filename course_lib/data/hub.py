"""The model and data hub: asked only where it can be reached, so that a missing network is known at once."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
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
    try:
        with socket.create_connection((address.hostname, port), timeout=SECONDS):
            return True
    except OSError:
        return False


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
