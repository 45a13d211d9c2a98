r"""The prompts that ship, as one table; to add a prompt, add a row.

Sources (Springer et al., arXiv 2402.15449):

- `echo`, `classical`: the zero-shot prompts of version 2 (section 5, table 1).
- `echo-sentence`, `classical-sentence`: section 3.
- `echo-instruct-*`: the authors' released format, which their published checkpoints were trained
  with: no blank after the colons, a comma after the instruction (one piece with it), EOS pooled.
  `<s>Instruct:{!%%prompt%%,}\nQuery:{!%%text%%}\nQuery again:{%%text%%}{</s>}`
- `classical-instruct-*`: the same with one copy (section 4).
- `prompt-eol`: Jiang et al., arXiv 2307.16645, canonical form.
- `paper-*-1` to `-12`: the prompts sampled for the prompt-sensitivity study (appendix D). The
  paper's listing of the PromptEOL ones shows stray closing braces of the authors' own template
  language and no blank after S; here the braces are left out and the blank of the stated form
  "{prefix} S {instruction1}{separator}" is put in.
"""

from __future__ import annotations

from collections.abc import Mapping

from echovec.text.template import Template

SYMMETRIC_INSTRUCTION = "Retrieve semantically similar text"
QUERY_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
_INSTRUCT_ECHO = "Instruct:{instruction,}\nQuery:{text}\nQuery again:{text}"
_INSTRUCT_CLASSICAL = "Instruct:{instruction,}\nQuery:{text}"

TEMPLATES: Mapping[str, Template] = {
    "classical": Template("Write a paragraph: {text}"),
    "classical-sentence": Template("Write a sentence: {text}"),
    "echo": Template("Rewrite the following paragraph: {text}. The rewritten paragraph: {text}"),
    "echo-sentence": Template(
        "Rewrite the following sentence: {text}\nThe rewritten sentence: {text}"
    ),
    "prompt-eol": Template('This sentence : "{text}" means in one word:"', pooled="end"),
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
