"""Features of images: how they are made, and how they are kept."""

from kshot.features.cache import FeatureCache
from kshot.features.extract import extract, extract_many, extract_words, prepare

__all__ = ["FeatureCache", "extract", "extract_many", "extract_words", "prepare"]
