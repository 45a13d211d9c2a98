"""Export: an embedder written so that other runtimes load it, and proof that it is the same one."""
