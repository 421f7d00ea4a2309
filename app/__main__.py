"""`python -m app` is `loam`."""

from app.cli import main

main()
