"""Indexes of vectors: what is near a query, what is alike, what the whole looks like."""
