"""CPU, no torch: a text becomes ids by a template, and many texts become batches."""
