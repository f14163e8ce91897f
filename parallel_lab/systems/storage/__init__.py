"""Where data lie: file systems, object stores, caches and databases; formats, and readers that keep ranks fed."""
