"""Runs that ship, by name; to add one, add a row.

Source of the paper's: Springer et al., section 4, and version 2's tables 15 and 16 for instructions
and ratios. What it does not state (schedule, warm-up, length) is this software's choice and said so
in docs/train.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from echovec.train.data import Source
from echovec.train.run import Run

_WIKI = "Given a question, retrieve Wikipedia passages that answer the question"
_CHINESE = "Given a Chinese search query, retrieve web passages that answer the question"
_RETRIEVE = "Retrieve Wikipedia passages that answer the question"


def _echo_data(
    name: str, *instructions: str, ratio: float = 1.0, symmetric: bool = False
) -> Source:
    return Source(
        path=f"echo-data/{name}.jsonl",
        name=name,
        ratio=ratio,
        instructions=instructions,
        symmetric=symmetric,
        licence="see the set",
    )


PAPER_SOURCES = (
    _echo_data(
        "allnli",
        "Given a premise, retrieve a hypothesis that is entailed by the premise",
        "Retrieve semantically similar text",
        symmetric=True,
    ),
    _echo_data("dureader", _CHINESE),
    _echo_data(
        "eli5_question_answer",
        "Provided a user question, retrieve the highest voted answers on Reddit ELI5 forum",
        ratio=0.1,
    ),
    _echo_data("fever", "Given a claim, retrieve documents that support or refute the claim"),
    _echo_data(
        "hotpot_qa",
        "Given a multi-hop question, retrieve documents that can help answer the question",
    ),
    _echo_data("miracl", _WIKI),
    _echo_data("mrtydi", _WIKI),
    _echo_data(
        "msmarco_passage",
        "Given a web search query, retrieve relevant passages that answer the query",
        ratio=0.5,
    ),
    _echo_data(
        "msmarco_document",
        "Given a web search query, retrieve relevant documents that answer the query",
        ratio=0.2,
    ),
    _echo_data("nq", _WIKI),
    _echo_data(
        "quora_duplicates",
        "Given a question, retrieve questions that are semantically equivalent to the given "
        "question",
        "Find questions that have the same meaning as the input question",
        ratio=0.1,
        symmetric=True,
    ),
    _echo_data("squad", _RETRIEVE),
    _echo_data("t2ranking", _CHINESE, ratio=0.5),
    _echo_data("trivia_qa", _RETRIEVE),
)
"""The authors' 14 sets (section 4) in the layout they were released in."""

_PAPER = Run(
    prompt="instruct",
    sources=PAPER_SOURCES,
    steps=720,
    batch_size=2048,
    mini_batch_tokens=65_536,
    learning_rate=8e-4,
    warmup_steps=72,
    max_tokens=300,
    precision="fast",
    eval_every=40,
    save_every=40,
)

_SNLI = Source(
    path="train_nli_snli_dev",
    name="nli",
    symmetric=True,
    instructions=("Retrieve semantically similar text",),
    licence="CC BY-SA 4.0",
)
_SQUAD = Source(
    path="train_squad",
    name="squad",
    ratio=0.1,  # four times as long as sentences, so a step costs four times as much
    instructions=(_RETRIEVE,),
    licence="CC BY-SA 4.0",
)

_SMOLLM2 = Run(
    name="smollm2-echo",
    sources=(_SNLI, _SQUAD),
    steps=110,
    batch_size=64,
    mini_batch_tokens=0,
    learning_rate=5e-4,
    max_tokens=48,
    precision="fast",
    eval_every=22,
    save_every=5,
)

_LABELLED = tuple(
    Source(path=path, name=name, label=label, symmetric=True, ratio=0.1, licence=licence)
    for path, name, label, licence in (
        ("train_squad", "questions", "positive", "CC BY-SA 4.0"),  # two about one passage
        ("CLINC150", "clinc", "label_text", "CC BY 3.0"),
        ("Banking77", "banking", "label_text", "CC BY 4.0"),
    )
)
_SCIFACT = Source(
    path="SciFact",
    name="scifact",
    instructions=("Given a scientific claim, retrieve documents that support or refute it",),
    licence="claims CC BY 4.0, abstracts ODC-By 1.0",
)
_OWN = Source(
    path="own-pairs.jsonl",
    name="own pairs",
    licence="written by the model itself: echovec pairs -o own-pairs.jsonl",
)
_UNLABELLED = (
    Source(
        path="SciFact/corpus.jsonl.gz",
        name="titles",
        columns=("title", "text"),
        ratio=0.4,
        licence="ODC-By 1.0",
    ),
    Source(
        path="SciFact/corpus.jsonl.gz",
        name="sentences of abstracts",
        columns=("text",),
        cloze=True,
        ratio=0.3,
        licence="ODC-By 1.0",
    ),
    Source(
        path="train_squad",
        name="sentences of passages",
        columns=("positive",),
        cloze=True,
        ratio=0.5,
        licence="CC BY-SA 4.0",
    ),
)

RUNS: Mapping[str, Run] = {
    "paper-mistral-7b": replace(
        _PAPER, name="paper-mistral-7b", model="mistralai/Mistral-7B-Instruct-v0.1"
    ),
    "paper-s-llama-1.3b": replace(
        _PAPER, name="paper-s-llama-1.3b", model="princeton-nlp/Sheared-LLaMA-1.3B"
    ),
    "smollm2-echo": _SMOLLM2,
    "smollm2-echo-labels": replace(
        _SMOLLM2,
        name="smollm2-echo-labels",
        sources=(_SNLI, _SQUAD, *_LABELLED, _SCIFACT),
        steps=240,
        mini_batch_tokens=4096,
        eval_every=40,
        save_every=10,
    ),
    "smollm2-echo-cloze": replace(
        _SMOLLM2,
        name="smollm2-echo-cloze",
        sources=(_SNLI, _SQUAD, *_LABELLED, _SCIFACT, *_UNLABELLED),
        steps=240,
        mini_batch_tokens=4096,
        eval_every=40,
        save_every=10,
    ),
    "smollm2-echo-own": replace(
        _SMOLLM2,
        name="smollm2-echo-own",
        sources=(_OWN,),
        steps=100,
        mini_batch_tokens=4096,
        eval_every=25,
        save_every=10,
    ),
    "smollm2-echo-matched": replace(_SMOLLM2, name="smollm2-echo-matched", text_share=0.5),
    "smollm2-classical": replace(_SMOLLM2, name="smollm2-classical", arm="classical"),
    "smollm2-bidirectional": replace(_SMOLLM2, name="smollm2-bidirectional", arm="bidirectional"),
    "smollm2-simcse": replace(
        _SMOLLM2,
        name="smollm2-simcse",
        objective="simcse",
        input_dropout=0.1,
        sources=(Source(path="train_nli_snli_dev", name="sentences", licence="CC BY-SA 4.0"),),
    ),
    "smollm2-mntp": replace(
        _SMOLLM2,
        name="smollm2-mntp",
        objective="mntp",
        arm="bidirectional",
        sources=(Source(path="train_squad", name="passages", licence="CC BY-SA 4.0"),),
    ),
    "tiny": Run(
        name="tiny",
        model="tiny",
        steps=8,
        batch_size=8,
        mini_batch_tokens=256,
        max_tokens=24,
        warmup_steps=1,
        eval_every=4,
        save_every=4,
    ),
}
"""Every run that ships. "tiny" brings its own model and texts, for tests and a first look."""
