"""Hands on `format_bytes` to the chapters that know it here."""

from parallel_lab.trace.units import format_bytes

__all__ = ["format_bytes"]
