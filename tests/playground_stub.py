"""A small index in memory for the tests of the playground, and a browser."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from echovec.search.points import principal_plane
from echovec.serve.playground.searchable import Shown

CHROMIUM = Path("/usr/bin/chromium")
TEXTS = [f"{animal} number {n}" for animal in ("cat", "dog", "fish") for n in range(8)]


class StubIndex:
    """Texts embedded by a tiny model, searched by hand."""

    def __init__(self, embedder, texts=TEXTS, fields=None):
        self.fingerprint = embedder.recipe.fingerprint
        self.texts, self.fields = texts, fields
        self.vectors = embedder.encode(texts, show_progress_bar=False)

    def __len__(self):
        return len(self.texts)

    def search(self, query, k=10):
        scores = self.vectors @ query
        order = np.argsort(-scores, kind="stable")[:k]
        return [
            SimpleNamespace(
                rank=rank + 1, score=float(scores[i]), id=f"row-{i}", text=self.texts[i]
            )
            for rank, i in enumerate(order)
        ]

    def points(self, limit=None):
        count = min(limit or len(self), len(self))
        numbers = {
            "animal": [text.split()[0] for text in self.texts[:count]],
            "unique": list(range(count)),
            "same": [1] * count,
        }
        return SimpleNamespace(
            ids=[f"row-{i}" for i in range(count)],
            texts=self.texts[:count],
            fields=numbers if self.fields is None else self.fields,
            xy_N2=principal_plane(self.vectors[:count]),
            vectors_ND=self.vectors[:count],
        )


def shown(service, name="echo"):
    """The stub index, made with one of the service's recipes."""
    return Shown(StubIndex(service.served[name].embedder), "animals")


@contextlib.contextmanager
def chromium():
    """Debian's Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as engines:
        browser = engines.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@contextlib.contextmanager
def page_of(browser, address, **options):
    """A page at the server's address, and what its console complained of."""
    complaints = []
    page = browser.new_page(**options)
    page.set_default_timeout(60_000)
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: outside(request.url, address, complaints))
    page.goto(f"http://{address}/")
    page.wait_for_selector("html[data-ready]", state="attached")
    yield page, complaints
    page.close()


def outside(url, address, complaints):
    """Note a request that leaves the server."""
    if not url.startswith((f"http://{address}/", "data:", "blob:")):
        complaints.append(f"asked {url}")
