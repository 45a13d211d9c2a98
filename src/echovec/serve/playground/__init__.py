"""Playground: the page at `/`: what echo does to two texts, ranks, an index, code to copy."""
