"""`python -m parallel_lab.cli`, where the command itself is not on the path."""

from parallel_lab.cli.commands import main

main()
