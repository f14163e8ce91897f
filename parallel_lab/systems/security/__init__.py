"""Attacks on a training job that succeed, each beside the defense that stops it; on own processes only."""
