r"""The prompts that ship, as one table; to add a prompt, add a row.

Sources (Springer et al., arXiv 2402.15449):

- `echo`, `classical`: the zero-shot prompts of version 2 (section 5, table 1).
- `echo-sentence`, `classical-sentence`: section 3.
- `echo-instruct-*`: the authors' released format, which their published checkpoints were trained
  with: no blank after the colons, a comma after the instruction (one piece with it), EOS pooled.
  `<s>Instruct:{!%%prompt%%,}\nQuery:{!%%text%%}\nQuery again:{%%text%%}{</s>}`
- `classical-instruct-*`: the same with one copy (section 4).
- `prompt-eol`: Jiang et al., arXiv 2307.16645, canonical form; `prompt-eol-shown` begins with one
  demonstration of theirs, on a line of its own.
- `pretended-cot`, `knowledge`: Zhang et al., arXiv 2404.03921. `META_EOL`: the eight prompts of
  MetaEOL (Lei et al., ACL 2024). Those two lists of prompts end in a quote that opens, as
  PromptEOL does.
- `echo-bare`: echo whose second copy is in lower case without punctuation (wording.py).
- `echo-3`, `echo-4`, `repeat-only`, `instruction-only`: controls that the echo paper leaves out.
- `ECHO_EOL`: echo with a one-word suffix after the second copy.
- `paper-*-1` to `-12`: the prompts sampled for the prompt-sensitivity study (appendix D). The
  paper's listing of the PromptEOL ones shows stray closing braces of the authors' own template
  language and no blank after S; here the braces are left out and the blank of the stated form
  "{prefix} S {instruction1}{separator}" is put in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from echovec.text.template import Fixed, Template

SYMMETRIC_INSTRUCTION = "Retrieve semantically similar text"
QUERY_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
_INSTRUCT_ECHO = "Instruct:{instruction,}\nQuery:{text}\nQuery again:{text}"
_INSTRUCT_CLASSICAL = "Instruct:{instruction,}\nQuery:{text}"
_ECHO = "Rewrite the following paragraph: {text}. The rewritten paragraph: {text}"
PROMPT_EOL_PREPENDED = Template(
    'This sentence : {placeholder} "{text}" means in one word:"', pooled="end"
)
"""PromptEOL with a place for token prepending (Fu et al., arXiv 2412.11556)."""
PROMPT_EOL = Template('This sentence : "{text}" means in one word:"', pooled="end")
ECHO_EOL = Template(_ECHO + '\nThis paragraph means in one word:"')
WORDS = Template(" {text:bare}")
"""A text's words and nothing else, each after a blank, for readings of what they are by themselves:
the preset "sif" (Arora et al., ICLR 2017) reads the token embeddings, which costs no layer."""
SUMMARY = '\nBrief summary: "'
"""What SCSP asks at the end (Cheng et al. 2026); its attention says which tokens matter."""


def demonstrated(template: Template, text: str, answer: str = "") -> Template:
    """The template after one demonstration of itself, on a line of its own.

    Args:
        template: any template without an instruction.
        text: the text that is shown in it.
        answer: what follows the shown prompt, e.g. the word that a one-word prompt asks for.
    """
    shown = "".join(
        piece.text if isinstance(piece, Fixed) else piece.lead + text for piece in template.pieces
    )
    escaped = (shown + answer).replace("{", "{{").replace("}", "}}")
    return replace(template, prompt=f"{escaped}\n{template.prompt}")


TEMPLATES: Mapping[str, Template] = {
    "classical": Template("Write a paragraph: {text}"),
    "classical-sentence": Template("Write a sentence: {text}"),
    "echo": Template(_ECHO),
    "echo-sentence": Template(
        "Rewrite the following sentence: {text}\nThe rewritten sentence: {text}"
    ),
    "echo-bare": Template(
        "Rewrite the following paragraph: {text}. The rewritten paragraph: {text:bare}"
    ),
    "echo-3": Template(_ECHO + ". The rewritten paragraph: {text}"),
    "echo-4": Template(_ECHO + ". The rewritten paragraph: {text}" * 2),
    "repeat-only": Template("{text}\n{text}"),
    "instruction-only": Template("Rewrite the following paragraph: {text}"),
    "prompt-eol": PROMPT_EOL,
    "prompt-eol-shown": demonstrated(PROMPT_EOL, "A jockey riding a horse.", 'Equestrian".'),
    "pretended-cot": Template(
        'After thinking step by step , this sentence : "{text}" means in one word:"', pooled="end"
    ),
    "knowledge": Template(
        "The essence of a sentence is often captured by its main subjects and actions, while "
        "descriptive terms provide additional but less central details. With this in mind , this "
        'sentence : "{text}" means in one word:"',
        pooled="end",
    ),
    "echo-instruct-symmetric": Template(
        _INSTRUCT_ECHO, eos="pooled", instruction=SYMMETRIC_INSTRUCTION
    ),
    "echo-instruct-query": Template(_INSTRUCT_ECHO, eos="pooled", instruction=QUERY_INSTRUCTION),
    "echo-instruct-document": Template("Document:{text}\nDocument again:{text}", eos="pooled"),
    "classical-instruct-symmetric": Template(
        _INSTRUCT_CLASSICAL, eos="pooled", instruction=SYMMETRIC_INSTRUCTION
    ),
    "classical-instruct-query": Template(
        _INSTRUCT_CLASSICAL, eos="pooled", instruction=QUERY_INSTRUCTION
    ),
    "classical-instruct-document": Template("Document:{text}", eos="pooled"),
}

_META_EOL_TASKS = (
    (
        "In this task, you're presented with a text excerpt. Your task is to categorize the "
        "excerpt into a broad category such as 'Education', 'Technology', 'Health', "
        "'Business', 'Environment', 'Politics', or 'Culture'. These categories help in "
        "organizing content for better accessibility and targeting. For this task, this "
        'sentence : "{text}" should be classified under one general category in one word:"'
    ),
    (
        "In this task, you're given a statement and you need to determine whether it's "
        "presenting an 'Opinion' or a 'Fact'. This distinction is vital for information "
        "verification, educational purposes, and content analysis. For this task, this "
        'sentence : "{text}" discriminates between opinion and fact in one word:"'
    ),
    (
        "In this task, you're given a review from an online platform. Your task is to "
        "generate a rating for the product based on the review on a scale of 1-5, where 1 "
        "means 'extremely negative' and 5 means 'extremely positive'. For this task, this "
        'sentence : "{text}" reflects the sentiment in one word:"'
    ),
    (
        "In this task, you're reading a personal diary entry. Your task is to identify the "
        "predominant emotion expressed, such as joy, sadness, anger, fear, or love. For this "
        'task, this sentence : "{text}" conveys the emotion in one word:"'
    ),
    (
        "In this task, you're presented with two sentences. Your task is to assess whether "
        "the sentences convey the same meaning. Use 'identical', 'similar', 'different', or "
        "'unrelated' to describe the relationship. To enhance the performance of this task, "
        'this sentence : "{text}" means in one word:"'
    ),
    (
        "In this task, you're given a sentence and a phrase. Your task is to determine if the"
        " phrase can be a contextual synonym within the given sentence. Options include "
        "'yes', 'no', or 'partially'. To enhance the performance of this task, this sentence "
        ': "{text}" means in one word:"'
    ),
    (
        "In this task, you're examining a news article. Your task is to extract the most "
        'critical fact from the article. For this task, this sentence : "{text}" encapsulates'
        ' the key fact in one word:"'
    ),
    (
        "In this task, you're reviewing a scientific abstract. Your task is to identify the "
        "main entities (e.g., proteins, diseases) and their relations (e.g., causes, treats)."
        ' For this task, this sentence : "{text}" highlights the primary entity or relation '
        'in one word:"'
    ),
)
META_EOL = tuple(Template(prompt, pooled="end") for prompt in _META_EOL_TASKS)

SAMPLED_CLASSICAL = (
    "Write a sentence      I] {text}",
    "Write a prompt!\n (I) {text}",
    "Write some text\n        PROMPT-{text}",
    "SAY A PARAGRAPH | SENTENCE 0] {text}",
    "Say a query     QUERY: {text}",
    "Say a sentence!\n [A] {text}",
    "COMPLETE THE PROMPT Text (1) {text}",
    "Complete the query SENTENCE 0) {text}",
    "Complete the sentence:-{text}",
    "Explain a query     text 0 {text}",
    "Explain a prompt | Sentence 1> {text}",
    "EXPLAIN A SENTENCE     Prompt (1) {text}",
)

SAMPLED_ECHO = (
    "Repeat The Paragraph.\nquery 1) {text}.\nquery 2) {text}",
    "Repeat the response.\n 1) {text}.\nAGAIN 2) {text}",
    "REPEAT THE SENTENCE :: PROMPT\n{text} :: RESPONSE\n{text}",
    "Rewrite the query | QUERY (A) {text} | (B) {text}",
    "Rewrite the text. SENTENCE A) {text}. B) {text}",
    "Rewrite the response | query A] {text} | query B] {text}",
    "Rephrase the sentence:@{text}:Again@{text}",
    "Rephrase The Sentence!\nText <> {text}!\nAnswer <> {text}",
    "REPHRASE THE QUERY     Sentence a) {text}     Answer b) {text}",
    "Fill in the blank in the prompt:\nQuery a) {text}:\nQuery b) {text}",
    "FILL IN THE BLANK IN THE RESPONSE | Sentence A) {text} | Sentence B) {text}",
    "Fill in the blank in the paragraph.\nText | {text}.\nResponse | {text}",
)

SAMPLED_PROMPT_EOL = (
    "SUMMARIZE THE QUERY.\nPrompt: {text} IN A WORD.\n",
    "Summarize the sentence!\nPROMPT <1> {text} Succinctly With One Word!\n",
    "SUMMARIZE THE PARAGRAPH. PROMPT (0) {text} IN A WORD.",
    "CATEGORIZE THE PROMPT query\n{text} With a single word",
    "Categorize the query | prompt [1] {text} in a word |",
    "CATEGORIZE THE SENTENCE.\nPrompt <1> {text} IN A WORD.\n",
    "Understand the sentence\n        @{text} In a single word\n",
    "Understand The Prompt:QUERY [0] {text} in a single word:",
    "UNDERSTAND THE PARAGRAPH:Text I] {text} Succinctly with one word:",
    "Analyze the sentence.\nSentence {text} In A Unique One-word Way.\n",
    "Analyze the response! query a> {text} IN A UNIQUE ONE-WORD WAY!",
    "Analyze The Prompt\n        Sentence a> {text} In a unique one-word way\n",
)

SAMPLED: Mapping[str, Template] = {
    f"paper-{kind}-{number}": Template(prompt, pooled="end" if kind == "prompt-eol" else -1)
    for kind, prompts in (
        ("classical", SAMPLED_CLASSICAL),
        ("echo", SAMPLED_ECHO),
        ("prompt-eol", SAMPLED_PROMPT_EOL),
    )
    for number, prompt in enumerate(prompts, 1)
}
