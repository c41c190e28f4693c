"""Features of images: how they are made, and how they are kept."""

from kshot.features.cache import FeatureCache
from kshot.features.engines import accelerate, precision_of
from kshot.features.extract import extract, extract_many, extract_words, prepare

__all__ = ["FeatureCache", "accelerate", "extract", "extract_many", "extract_words", "precision_of", "prepare"]
