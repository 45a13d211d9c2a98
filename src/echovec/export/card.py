"""Card: the README.md of an export: how to load it, what it is, how far from the embedder."""

from __future__ import annotations

from pathlib import Path

from echovec.embedder import Embedder
from echovec.export.parity import Parity
from echovec.export.program import Program
from echovec.version import __version__

_PLAIN = """model = SentenceTransformer("{folder}")"""
_MODULE = """model = SentenceTransformer("{folder}", trust_remote_code=True)   # runs echo_module.py
# or, running none of this folder's code:
# import echovec.sentence_transformers; model = echovec.sentence_transformers.load("{folder}")"""


def card(embedder: Embedder, program: Program, parity: Parity) -> str:
    """Markdown with the metadata that hubs read at its head."""
    recipe = embedder.recipe
    name = recipe.model.name if recipe.model else "a causal language model"
    base = embedder.model_path
    head = ["library_name: sentence-transformers", "pipeline_tag: sentence-similarity", "tags:"]
    tags = ("sentence-transformers", "feature-extraction", "sentence-similarity", "echo-embeddings")
    head += [f"- {tag}" for tag in tags]
    if base is not None and not isinstance(base, Path):
        head.append(f"base_model: {base}")
    rows = "\n".join(
        f"| {g.name} | {g.texts} | {g.max_diff:.1e} | {g.lowest_cosine:.7f} |"
        for g in parity.groups
    )
    prompts = "\n".join(
        f"- {role}: " + "; ".join(f"`{v.template.prompt!r}` ({v.pooling})" for v in views)
        for role, views in recipe.views.items()
    )
    load = (_PLAIN if parity.route == "plain" else _MODULE).format(folder="this folder")
    width = embedder.dimension
    return f"""---
{chr(10).join(head)}
---

# {name}, {recipe.name}

Texts to unit vectors of {width} numbers with {name}, by the recipe `{recipe.name}` (fingerprint
`{recipe.fingerprint}`); written by echovec {__version__}. Each copy of a text is cut to
{program.max_tokens} tokens.

```python
from sentence_transformers import SentenceTransformer

{load}
queries = model.encode_query(["what is an echo embedding?"])
documents = model.encode_document(["Reading a text twice lets its first word see its last."])
scores = model.similarity(queries, documents)
```

Prompts; both `{{text}}` of a prompt are the same token ids:

{prompts}

Compared with the embedder it was made from, when it was written:

| texts | count | max difference | lowest cosine |
|---|---|---|---|
{rows}

The model's own licence holds for its weights. Method: Springer et al., "Repetition Improves
Language Model Embeddings", ICLR 2025, arXiv 2402.15449.
"""


def graph_card(embedder: Embedder, parity: Parity) -> str:
    """Markdown for a graph: its inputs, how to run it, and the proof that it is the same."""
    recipe = embedder.recipe
    name = recipe.model.name if recipe.model else "a causal language model"
    rows = "\n".join(
        f"| {g.name} | {g.texts} | {g.max_diff:.1e} | {g.lowest_cosine:.7f} |"
        for g in parity.groups
    )
    return f"""# {name}, {recipe.name}, {parity.route}

Written by echovec {__version__}; recipe fingerprint `{recipe.fingerprint}`, {embedder.dimension}
numbers to a vector. Each copy of a text is cut to {recipe.max_tokens} tokens.

```python
from echovec.export.runtime import Runtime

vectors = Runtime("this folder").encode(["a text"], role="query")
```

The graph's inputs, for each pass k: `ids_k` and `mask_k` [texts, tokens], `spans_k` [texts, views,
2] (the half-open positions that are pooled), all int64; its output: unit `vectors`.

| texts | count | max difference | lowest cosine |
|---|---|---|---|
{rows}
"""
