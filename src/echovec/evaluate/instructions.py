"""Instructions: what each task asks for, for recipes that take an instruction.

Sources: Springer et al., arXiv 2402.15449 version 2, tables 15 and 16; Wang et al., "Improving Text
Embeddings with Large Language Models" (E5-Mistral), arXiv 2401.00368, table 13, which table 16 of
the former follows. In retrieval the query alone has an instruction, unless a template asks for one
on documents too; symmetric tasks have the same on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping

_STS = "Retrieve semantically similar text"
_SUMMARIES = "Given a news summary, retrieve other semantically similar summaries"
_TWEETS = "Retrieve tweets that are semantically similar to the given tweet"
_CLAIM = "Given a claim, retrieve documents that support or refute the claim"
_CLUSTER = "Identify the main {of}category of {what} papers based on the titles{more}"
_TOPIC = "Identify the topic or theme of {what} posts based on the {by}"
_DUPLICATES = "Retrieve duplicate questions from {where} forum"
_CQA = (
    "Given a question, retrieve detailed question descriptions from Stackexchange that are "
    "duplicates to the given question"
)
_ABSTRACTS = " and abstracts"

INSTRUCTIONS: Mapping[str, str] = {
    # classification
    "AmazonCounterfactualClassification": (
        "Classify a given Amazon customer review text as either counterfactual or "
        "not-counterfactual"
    ),
    "AmazonPolarityClassification": "Classify Amazon reviews into positive or negative sentiment",
    "AmazonReviewsClassification": (
        "Classify the given Amazon review into its appropriate rating category"
    ),
    "Banking77Classification": (
        "Given a online banking query, find the corresponding intents"  # sic
    ),
    "EmotionClassification": (
        "Classify the emotion expressed in the given Twitter message into one of the six "
        "emotions: anger, fear, joy, love, sadness, and surprise"
    ),
    "ImdbClassification": (
        "Classify the sentiment expressed in the given movie review text from the IMDB dataset"
    ),
    "MassiveIntentClassification": "Given a user utterance as query, find the user intents",
    "MassiveScenarioClassification": "Given a user utterance as query, find the user scenarios",
    "MTOPDomainClassification": (
        "Classify the intent domain of the given utterance in task-oriented conversation"
    ),
    "MTOPIntentClassification": (
        "Classify the intent of the given utterance in task-oriented conversation"
    ),
    "ToxicConversationsClassification": (
        "Classify the given comments as either toxic or not toxic"
    ),
    "TweetSentimentExtractionClassification": (
        "Classify the sentiment of a given tweet as either positive, negative, or neutral"
    ),
    # clustering
    "ArxivClusteringP2P": _CLUSTER.format(of="and secondary ", what="Arxiv", more=_ABSTRACTS),
    "ArxivClusteringS2S": _CLUSTER.format(of="and secondary ", what="Arxiv", more=""),
    "BiorxivClusteringP2P": _CLUSTER.format(of="", what="Biorxiv", more=_ABSTRACTS),
    "BiorxivClusteringS2S": _CLUSTER.format(of="", what="Biorxiv", more=""),
    "MedrxivClusteringP2P": _CLUSTER.format(of="", what="Medrxiv", more=_ABSTRACTS),
    "MedrxivClusteringS2S": _CLUSTER.format(of="", what="Medrxiv", more=""),
    "RedditClustering": _TOPIC.format(what="Reddit", by="titles"),
    "RedditClusteringP2P": _TOPIC.format(what="Reddit", by="titles and posts"),
    "StackExchangeClustering": _TOPIC.format(what="StackExchange", by="titles"),
    "StackExchangeClusteringP2P": _TOPIC.format(what="StackExchange", by="given paragraphs"),
    "TwentyNewsgroupsClustering": "Identify the topic or theme of the given news articles",
    # pair classification
    "SprintDuplicateQuestions": _DUPLICATES.format(where="Sprint"),
    "TwitterSemEval2015": _TWEETS,
    "TwitterURLCorpus": _TWEETS,
    # reranking
    "AskUbuntuDupQuestions": _DUPLICATES.format(where="AskUbuntu"),
    "MindSmallReranking": "Retrieve relevant news articles based on user browsing history",
    "SciDocsRR": (
        "Given a title of a scientific paper, retrieve the titles of other relevant papers"
    ),
    "StackOverflowDupQuestions": _DUPLICATES.format(where="StackOverflow"),
    # retrieval
    "ArguAna": "Given a claim, find documents that refute the claim",
    "ClimateFEVER": (
        "Given a claim about climate change, retrieve documents that support or refute the claim"
    ),
    "DBPedia": "Given a query, retrieve relevant entity descriptions from DBPedia",
    "FEVER": _CLAIM,
    "FiQA2018": "Given a financial question, retrieve user replies that best answer the question",
    "HotpotQA": "Given a multi-hop question, retrieve documents that can help answer the question",
    "MSMARCO": "Given a web search query, retrieve relevant passages that answer the query",
    "NFCorpus": "Given a question, retrieve relevant documents that best answer the question",
    "NQ": "Given a question, retrieve Wikipedia passages that answer the question",
    "QuoraRetrieval": (
        "Given a question, retrieve questions that are semantically equivalent to the given "
        "question"
    ),
    "SCIDOCS": (
        "Given a scientific paper title, retrieve paper abstracts that are cited by the given paper"
    ),
    "SciFact": ("Given a scientific claim, retrieve documents that support or refute the claim"),
    "Touche2020": (
        "Given a question, retrieve detailed and persuasive arguments that answer the question"
    ),
    "TRECCOVID": "Given a query on COVID-19, retrieve documents that answer the query",
    # similarity and summaries
    **dict.fromkeys(
        (
            "BIOSSES",
            "SICK-R",
            "STS12",
            "STS13",
            "STS14",
            "STS15",
            "STS16",
            "STS17",
            "STS22",
            "STSBenchmark",
        ),
        _STS,
    ),
    "SummEval": _SUMMARIES,
    "SummEvalSummarization.v2": _SUMMARIES,
    "CQADupstackRetrieval": _CQA,
    # in no list of theirs, worded alike
    "CLINC150": "Given a user utterance as query, find the user intents",
    "MSMARCO-DL19-rerank": (
        "Given a web search query, retrieve relevant passages that answer the query"
    ),
    "QuoraPairs": (
        "Find questions that have the same meaning as the input question"  # table 15
    ),
    "StackOverflowShort": "Identify the topic or theme of StackOverflow posts based on the titles",
    "XQuAD-en-retrieval": (
        "Given a question, retrieve Wikipedia passages that answer the question"
    ),
}
"""mteb's name of the task to its instruction."""

BY_CATEGORY: Mapping[str, str] = {
    "STS": _STS,
    "PairClassification": _STS,
    "Classification": "Classify the given text",
    "Clustering": "Identify the topic or theme of the given texts",
    "Retrieval": "Given a web search query, retrieve relevant passages that answer the query",
    "Reranking": "Given a query, retrieve texts that are relevant to it",
    "Summarization": _SUMMARIES,
}
"""For tasks that no list names."""


def instruction_of(name: str, category: str, own: str | None = None) -> str:
    """A task's instruction.

    Args:
        name: its name at mteb, or the folder's.
        category: mteb's type of task.
        own: what the task itself says, for tasks that are in no list.
    """
    if name.startswith("CQADupstack"):
        name = "CQADupstackRetrieval"
    return INSTRUCTIONS.get(name) or own or BY_CATEGORY.get(category, _STS)
