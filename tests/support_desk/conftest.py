"""The desk as it is shipped: its articles, their index and the classifier learned from its examples, made once."""

import pytest

from agentflow_support_desk import MATERIAL, Article, Classifier, build_index, load_articles, load_examples


@pytest.fixture(scope="session")
def articles() -> list[Article]:
    """The shipped articles."""
    return load_articles(MATERIAL / "articles")


@pytest.fixture(scope="session")
def index(articles: list[Article]) -> bytes:
    """The shipped articles, ready to be searched."""
    return build_index(articles)


@pytest.fixture(scope="session")
def classifier() -> Classifier:
    """The classifier, trained on the shipped examples only."""
    return Classifier.train(load_examples(MATERIAL / "examples.csv"))
