"""Files of vectors: written so that they stay, the manifest of a folder of them, read again."""
