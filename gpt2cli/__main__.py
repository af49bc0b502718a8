"""`python -m gpt2cli` is the same as `gpt2`."""

from gpt2cli.cli.app import main

main()
