"""Plugins: an embedder as other frameworks want it, one thin file each.

    langchain    Embeddings                     llm        the `llm` command's embedding models
    llamaindex   BaseEmbedding                  sklearn    a transformer for pipelines
    haystack     text and document embedders    datasets   a column of vectors by `map`
    mteb         models in mteb's registry

Each imports its framework, so none is imported here. All hold their embedder by a `Handle`.
"""
