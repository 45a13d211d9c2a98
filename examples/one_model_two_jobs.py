"""One model in memory that writes and embeds; nothing about it is changed.

python examples/one_model_two_jobs.py
"""

from __future__ import annotations

from typing import Any

from echovec import Embedder


def main(lm: Any, tokenizer: Any) -> str:
    """Embed, generate, embed again: the second vector is the first."""
    embedder = Embedder.from_model(lm, tokenizer, "echo")
    before = embedder.encode("A cat sat on the mat.")
    start = tokenizer("Once upon a time", return_tensors="pt")
    written = lm.generate(
        input_ids=start["input_ids"],
        attention_mask=start["attention_mask"],
        max_new_tokens=8,
        do_sample=False,
        pad_token_id=tokenizer.eos_token_id,
    )
    text = str(tokenizer.decode(written[0], skip_special_tokens=True))
    print(text)
    print(
        "same vector after generating:", (embedder.encode("A cat sat on the mat.") == before).all()
    )
    return text


if __name__ == "__main__":
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Embedder.load().model_path
    main(
        AutoModelForCausalLM.from_pretrained(folder, dtype="float32"),
        AutoTokenizer.from_pretrained(folder),
    )
