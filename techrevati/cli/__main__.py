"""``python -m techrevati.cli``."""

from techrevati.cli.main import main

main()
