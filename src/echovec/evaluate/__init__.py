"""Evaluate: mteb's own scores, reports on them, and the experiments of the paper.

    names --suites--> LocalTask | HubTask --sample--> loaded task --mteb + MtebEncoder--> scores
                                                                      |                     |
                                              Vectors (cache of shards)      Outcome (results.py)

`run.evaluate` is all of it; `encoder.MtebEncoder` is an embedder for mteb; `results.read_outcomes`
reads what was written; `selection.choose` chooses by development scores only.
"""
