"""Methods of few-shot segmentation: one paper family per file."""
