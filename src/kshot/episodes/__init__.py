"""Which images make an episode: the field's protocols, the sampler, and its CSV files."""
