"""Keep processes alive: the sampler, and the API beside it."""
