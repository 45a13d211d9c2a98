"""From a batch to hidden states: the backbones, and where models come from."""
