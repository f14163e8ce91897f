"""What stands beside the algorithms: hooks on full buckets, ranks without a batch, clipping, and the sampler."""
