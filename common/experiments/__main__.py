"""`python -m common.experiments …` is `repro …`."""

from common.experiments.cli import main

main()
