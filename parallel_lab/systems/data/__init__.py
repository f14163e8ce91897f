"""What data go through before a rank trains on them: cleaned, without duplicates, split, cut into tokens, shuffled."""
