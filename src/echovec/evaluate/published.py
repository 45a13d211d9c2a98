"""Published: the scores that papers print for these methods, as data, each with what it belongs to.

A printed score means something only with its backbone, its set of tasks and its table; every row
carries all three, and a report shows all three. What is not printed is not here: figures are
images, and values read off them by others are left out.

Sources:

- v1, v2: Springer et al., "Repetition Improves Language Model Embeddings", arXiv 2402.15449,
  versions 1 (February 2024) and 2 (ICLR 2025). Different zero-shot experiments: version 1 has 26
  datasets and a prompt chosen on FiQA2018, version 2 all 56 of MTEB English and one fixed prompt.
- LLM2Vec: BehnamGhader et al., arXiv 2404.05961: echo run again by other authors.

Scores are 0 to 100 as printed. Category names are mteb's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

MTEB_56 = "MTEB English, 56 datasets"
MTEB_MINI = "MTEB-MINI (28 datasets by the text, 26 named)"
V1_SUBSET = "26 named datasets, six validation sets left out of the category means"
V1_TASKS = "single datasets"

MISTRAL = "Mistral-7B-Instruct-v0.1"
MISTRAL_2 = "Mistral-7B-Instruct-v0.2"
LLAMA_7B = "LLaMA-2-7B-chat"
LLAMA_13B = "LLaMA-2-13B-chat"
SHEARED = "Sheared-LLaMA-1.3B"

CATEGORIES = (
    "Classification",
    "Clustering",
    "PairClassification",
    "Reranking",
    "Retrieval",
    "STS",
    "Summarization",
)
"""The order of version 2's tables; 12, 11, 3, 4, 15, 10 and 1 datasets of MTEB English."""

COUNTS: Mapping[str, int] = dict(zip(CATEGORIES, (12, 11, 3, 4, 15, 10, 1), strict=True))
"""How many datasets of MTEB English (56) each category has."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """One printed row."""

    method: str
    """What was done, by the name of the recipe that does it here: "echo", "classical",
    "prompt-eol", "echo-halved" (compute-matched), or the paper's own name where none does."""

    backbone: str
    """The model."""

    task_set: str
    """What the scores are averages over; scores over other tasks are not comparable."""

    table: str
    """Where it is printed, e.g. "v2 table 1"."""

    pooling: str = "mean"
    """"mean" or "lasttoken"; "weightedmean" is LLM2Vec's position-weighted mean."""

    trained: bool = False
    """Whether the backbone was fine-tuned for embedding."""

    scores: Mapping[str, float] = field(default_factory=dict)
    """Category to score."""

    average: float | None = None
    """The printed average over `task_set`."""

    tasks: Mapping[str, float] = field(default_factory=dict)
    """Dataset to score, where single datasets are printed."""

    note: str = ""
    """What a reader has to know before comparing."""


def _rows(
    table: str, task_set: str, note: str = "", *, trained: bool = False
) -> Mapping[str, object]:
    return {"table": table, "task_set": task_set, "note": note, "trained": trained}


def _of(method: str, backbone: str, printed: str, common: Mapping[str, object]) -> Published:
    """A row from its printed line: the seven categories in version 2's order, then the average."""
    method, _, pooling = method.partition(":")
    *scores, average = map(float, printed.split())
    return Published(
        method=method,
        backbone=backbone,
        pooling=pooling or "mean",
        scores=dict(zip(CATEGORIES, scores, strict=True)),
        average=average,
        **common,  # type: ignore[arg-type]
    )


_T1 = _rows("v2 table 1", MTEB_56)
_T1_EOL = _rows("v2 table 1", MTEB_56, "the one-word prompt behind this row is not printed")
_T1_HALF = _rows(
    "v2 table 1",
    MTEB_56,
    "called input halved; STS hardly changes (73.74 to 73.64), so probably the limit of tokens was "
    "halved and not every text",
)
_T1_LLM2VEC = _rows(
    "v2 table 1",
    MTEB_56,
    "digit for digit LLM2Vec's row without SimCSE on Mistral-7B-Instruct-v0.2; the full "
    "unsupervised LLM2Vec scores 56.80 and LLM2Vec's own echo run on v0.2 scores 50.26",
)
_T2 = _rows("v2 tables 2 and 12", MTEB_56)
_T5 = _rows("v2 table 5", MTEB_56, trained=True)
_LV = _rows("LLM2Vec, echo run again", MTEB_56, "task instructions on queries, not pooled")

TABLE_1 = (
    _of("echo", MISTRAL, "72.01 33.80 72.41 47.56 20.82 73.74 30.70 48.64", _T1),
    _of("echo-halved", MISTRAL, "71.63 33.51 72.31 47.43 22.85 73.64 31.02 49.02", _T1_HALF),
    _of("classical", MISTRAL, "64.87 34.14 57.71 43.60 18.26 57.07 27.02 42.38", _T1),
    _of(
        "prompt-eol:lasttoken", MISTRAL, "73.84 27.53 55.47 48.44 13.18 67.14 28.33 43.69", _T1_EOL
    ),
    _of("encoder", "BERT-large", "61.47 29.48 56.33 43.44 10.44 52.98 29.82 37.87", _T1),
    _of("encoder", "RoBERTa-large", "62.63 29.05 56.95 41.92 8.62 55.24 28.64 37.86", _T1),
    _of("llm2vec-unsup", MISTRAL_2, "72.51 40.06 70.95 50.43 19.74 71.90 27.84 49.43", _T1_LLM2VEC),
)

TABLE_2 = (
    _of("echo", SHEARED, "64.85 30.62 47.30 42.35 13.23 61.68 23.80 40.45", _T2),
    _of("classical", SHEARED, "59.41 27.50 41.01 38.09 8.53 47.91 23.36 34.31", _T2),
    _of("prompt-eol:lasttoken", SHEARED, "68.86 24.52 36.52 43.81 8.34 56.64 27.36 37.50", _T2),
    _of("echo", LLAMA_7B, "70.75 30.68 65.15 45.72 18.03 70.19 29.81 45.84", _T2),
    _of("classical", LLAMA_7B, "63.54 31.99 53.78 42.82 15.07 55.69 26.21 40.29", _T2),
    _of("prompt-eol:lasttoken", LLAMA_7B, "74.02 26.93 58.04 47.48 10.11 66.94 29.71 42.84", _T2),
)

TABLE_3 = tuple(
    Published(
        method=method, backbone=backbone, task_set=MTEB_MINI, table="v2 table 3", average=average
    )
    for backbone, averages in (
        (LLAMA_7B, (56.99, 47.27, 43.03)),
        (SHEARED, (49.55, 40.14, 35.77)),
        ("Mistral-7B", (59.78, 49.03, 58.24)),
    )
    for method, average in zip(("echo", "classical", "classical-both-ways"), averages, strict=True)
)

TABLE_4 = tuple(
    Published(
        method=method,
        backbone=MISTRAL,
        task_set=MTEB_56,
        table="v2 table 4",
        pooling=pooling,
        average=average,
    )
    for method, pooling, average in (
        ("echo", "mean", 48.64),
        ("echo", "lasttoken", 31.55),
        ("classical", "mean", 42.38),
        ("classical", "lasttoken", 31.94),
    )
)

TABLE_5 = (
    _of("echo-instruct:lasttoken", MISTRAL, "77.43 46.32 87.34 58.14 55.52 82.56 30.73 64.68", _T5),
    _of(
        "echo-instruct-half:lasttoken",
        MISTRAL,
        "77.39 46.27 87.49 58.08 55.07 83.18 30.73 64.66",
        _T5,
    ),
    _of(
        "classical-instruct:lasttoken",
        MISTRAL,
        "76.57 45.78 86.37 56.71 54.87 82.03 31.02 63.98",
        _T5,
    ),
    _of(
        "classical-instruct-bidirectional:lasttoken",
        MISTRAL,
        "76.70 45.94 88.15 57.23 54.96 82.42 29.32 64.23",
        _T5,
    ),
)

_V1_ORDER = (
    "Classification",
    "PairClassification",
    "Clustering",
    "Retrieval",
    "STS",
    "Reranking",
)
_V1_NOTE = (
    "the prompt was chosen on FiQA2018; the printed average is not the mean of the 26 named "
    "datasets"
)

V1_TABLE_1 = tuple(
    Published(
        method=method,
        backbone=backbone,
        task_set=V1_SUBSET,
        table="v1 table 1",
        pooling=pooling,
        scores=dict(zip(_V1_ORDER, map(float, printed.split()[:-1]), strict=True)),
        average=float(printed.split()[-1]),
        note=_V1_NOTE,
    )
    for method, backbone, pooling, printed in (
        ("echo", MISTRAL, "mean", "64.06 75.26 27.02 23.61 72.40 60.00 55.07"),
        ("classical", MISTRAL, "mean", "58.21 73.87 23.85 20.35 56.97 54.44 45.88"),
        ("summarization", MISTRAL, "lasttoken", "66.01 81.82 26.48 19.13 70.13 66.24 54.96"),
        ("echo", MISTRAL, "lasttoken", "63.11 57.93 12.82 2.97 39.14 47.35 36.60"),
        ("classical", MISTRAL, "lasttoken", "58.23 46.64 13.51 2.60 33.97 46.51 32.52"),
        ("echo", LLAMA_7B, "mean", "61.64 66.29 25.11 16.12 66.18 56.35 50.26"),
        ("classical", LLAMA_7B, "mean", "56.61 68.46 23.22 18.63 56.49 53.26 44.65"),
        ("echo", LLAMA_13B, "mean", "64.65 74.57 25.72 26.58 72.20 62.68 55.60"),
        ("classical", LLAMA_13B, "mean", "58.50 65.06 24.22 18.92 57.47 56.38 45.15"),
    )
)

LLM2VEC = (
    _of("echo", SHEARED, "63.75 30.03 52.08 41.52 10.36 59.36 22.79 39.10", _LV),
    _of("echo", LLAMA_7B, "69.82 34.25 63.54 46.84 16.16 67.95 25.57 45.36", _LV),
    _of("echo", MISTRAL_2, "72.69 36.78 75.87 51.07 22.68 73.60 29.54 50.26", _LV),
    _of("echo", "Meta-LLaMA-3-8B-Instruct", "70.22 36.32 68.95 49.79 12.58 67.43 26.44 45.32", _LV),
    *(
        Published(
            method="classical",
            backbone=backbone,
            task_set=MTEB_56,
            table="LLM2Vec, causal baseline",
            pooling="weightedmean",
            average=average,
        )
        for backbone, average in (
            (SHEARED, 35.05),
            (LLAMA_7B, 44.54),
            (MISTRAL_2, 42.46),
            ("Meta-LLaMA-3-8B-Instruct", 43.98),
        )
    ),
)

_PER_TASK = """\
FiQA2018                             7.89 12.74 12.43   6.48 12.38  9.00   8.31 18.07  9.43
SCIDOCS                              3.60  4.88  9.97   3.72  4.38  8.33   4.87  7.56 10.38
SciFact                             45.39 49.36 29.90  42.18 30.61 23.01  41.64 50.55 40.19
NFCorpus                            12.07 16.57 17.51  10.01 13.38 15.43  10.26 21.63 16.02
TwitterSemEval2015                  47.81 62.49 59.79  44.11 54.66 54.27  42.43 62.85 59.55
TwitterURLCorpus                    73.87 75.26 81.82  68.46 66.29 78.74  65.06 74.57 79.06
ImdbClassification                  72.50 72.02 82.78  71.65 73.11 85.83  71.82 75.44 91.86
AmazonReviewsClassification         37.09 40.72 45.58  36.16 40.68 44.77  37.88 43.25 50.60
TweetSentimentExtractionClassification 53.70 58.76 61.74 52.04 54.85 59.96 52.95 58.18 59.93
MTOPDomainClassification            83.85 92.71 90.72  81.63 89.38 89.97  84.67 92.52 87.51
TwentyNewsgroupsClustering          20.84 29.48 30.11  15.88 23.42 32.28  17.21 25.98 32.08
BiorxivClusteringS2S                23.47 27.61 27.21  23.13 25.92 27.79  24.95 26.75 28.30
MedrxivClusteringS2S                24.23 26.42 25.75  23.31 24.30 25.48  23.49 24.70 24.64
StackOverflowDupQuestions           35.85 42.71 40.32  35.57 40.82 35.63  37.24 44.86 38.44
AskUbuntuDupQuestions               49.49 54.09 57.17  48.51 51.42 56.09  50.74 55.21 54.15
SciDocsRR                           59.38 65.91 75.30  58.01 61.29 74.76  62.03 70.15 75.65
BIOSSES                             59.05 78.19 66.06  65.31 71.96 68.04  63.26 77.60 69.33
STS12                               42.01 58.43 64.62  41.84 52.40 60.20  51.80 59.36 51.17
STS13                               59.66 78.53 78.45  58.43 72.40 76.31  61.59 79.01 76.08
STS14                               50.69 68.42 71.00  49.21 61.24 68.73  49.69 69.75 66.62
STS15                               61.81 78.82 78.29  60.03 72.67 75.59  58.48 79.86 73.75
STS16                               57.03 77.52 77.40  56.40 73.51 76.71  53.18 76.75 77.40
STS17                               68.08 82.14 78.80  62.31 71.87 79.38  65.10 80.41 75.88
STS22                               61.23 57.60 47.07  59.48 55.21 55.69  59.00 56.84 49.23
STSBenchmark                        47.55 73.85 77.39  49.45 65.73 76.42  44.80 71.31 75.17
SICK-R                              53.19 71.95 69.48  55.35 64.39 70.69  55.13 70.27 71.70
"""


def _per_task() -> Iterator[Published]:
    lines = [line.split() for line in _PER_TASK.splitlines()]
    backbones = ((MISTRAL, "v1 table 11"), (LLAMA_7B, "v1 table 12"), (LLAMA_13B, "v1 table 13"))
    for which, (backbone, table) in enumerate(backbones):
        for place, method in enumerate(("classical", "echo", "summarization")):
            column = 1 + 3 * which + place
            yield Published(
                method=method,
                backbone=backbone,
                task_set=V1_TASKS,
                table=table,
                pooling="lasttoken" if method == "summarization" else "mean",
                tasks={line[0]: float(line[column]) for line in lines},
                note="version 1, with the prompt chosen on FiQA2018",
            )


PER_TASK = tuple(_per_task())
"""Single datasets of version 1, in its tables 11 to 13."""

ALL: tuple[Published, ...] = (
    *TABLE_1,
    *TABLE_2,
    *TABLE_3,
    *TABLE_4,
    *TABLE_5,
    *V1_TABLE_1,
    *LLM2VEC,
    *PER_TASK,
)

# The model whose row stands for a method when the model at hand has none of its own: the paper's
# main one.
_MAIN = MISTRAL


def published_row(recipe: str, model: str) -> Published | None:
    """The printed row of 56 datasets for the method of this recipe, or None if there is none.

    Args:
        recipe: a recipe's name.
        model: the model's name; its own row is taken where it has one, else that of the paper's
            main model, Mistral-7B-Instruct-v0.1. Rows of fine-tuned models stand only beside
            a model that says by its name that it is one (the authors' release).
    """
    trained = "echo-mistral-7b-instruct" in model.lower()
    rows = [
        row
        for row in (*TABLE_1, *TABLE_2, *TABLE_5)
        if row.method == recipe and row.trained == trained
    ]
    own = [row for row in rows if row.backbone.lower() in model.lower()]
    main = [row for row in rows if row.backbone == _MAIN]
    return next(iter(own + main), None)
