"""A tiny Llama with a byte-level tokenizer, as a GGUF file that transformers reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

WIDTH, HIDDEN, HEADS = 16, 32, 2


def write_tiny_gguf(path: Path, *, lack: str = "", weight: float = 0.0, seed: int = 0) -> Path:
    """Write the file; `lack` leaves one weight out, `weight` replaces one number where not 0."""
    from gguf import GGUFWriter
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = ["<|end|>", *sorted(ByteLevel.alphabet()), "th", "the"]
    writer = GGUFWriter(str(path), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_merges(["t h", "th e"])
    writer.add_token_types([3] + [1] * (len(tokens) - 1))
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_unk_token_id):
        add(0)
    square, tall, wide = (WIDTH, WIDTH), (HIDDEN, WIDTH), (WIDTH, HIDDEN)
    block = {
        **dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), square),
        **dict.fromkeys(("attn_norm", "ffn_norm"), (WIDTH,)),
        "ffn_gate": tall,
        "ffn_up": tall,
        "ffn_down": wide,
    }
    shapes = {"token_embd.weight": (len(tokens), WIDTH), "output_norm.weight": (WIDTH,)}
    shapes |= {f"blk.0.{name}.weight": shape for name, shape in block.items()}
    random = np.random.default_rng(seed)
    for name, shape in shapes.items():
        values = random.normal(size=shape).astype(np.float32)
        if weight and "ffn_up" in name:
            values[0, 0] = weight
        if name != lack:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
