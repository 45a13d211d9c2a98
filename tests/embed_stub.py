"""A small fake in place of a model, for `echovec embed` in a process of its own: no torch."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from echovec.errors import InputError, NonFiniteError


class FakeEmbedder:
    """Four numbers a text, of its length and first character; "!" has no tokens, "?" no number."""

    dimension = 4
    recipe = SimpleNamespace(
        name="echo",
        fingerprint="0123456789abcdef",
        max_tokens=512,
        to_json=lambda: '{"name": "echo"}',
    )

    def __init__(self):
        self.calls = []

    def encode(self, texts, *, truncate_dim=None, return_truncated=False, **options):
        """Vectors, and as truncated all texts of more than 20 characters."""
        assert return_truncated, "who embeds files must count what is cut"
        self.calls.append((list(texts), {**options, "truncate_dim": truncate_dim}))
        for index, text in enumerate(texts):
            if text.startswith("!"):
                raise InputError(f"texts[{index}] has no tokens ('!; !'); drop it", index=index)
            if text.startswith("?"):
                raise NonFiniteError(f"NaN for texts[{index}], in float32 too", row=index)
        if options.get("instruction") == "none":
            raise InputError("recipe 'echo' takes no instruction; leave it out")
        vectors = np.array([[len(t), ord(t[0]), 1, -1] for t in texts], dtype=np.float32)
        return vectors[:, :truncate_dim], np.array([len(t) > 20 for t in texts], dtype=bool)
