"""What a run does when something breaks: it notices, goes on, and loses nothing."""
