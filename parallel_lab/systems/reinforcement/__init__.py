"""Reinforcement learning of a language model in parallel: rollouts, a trainer, and the weights between them."""
