"""Serving a language model in parallel: prefill and decode, the cache of keys and values, batches, ranks."""
