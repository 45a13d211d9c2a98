"""From hidden states to vectors: pooling and what happens after it."""
