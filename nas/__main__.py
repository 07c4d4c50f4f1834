"""`python -m nas`: the command line where the folder of scripts is not on the path."""

from nas.cli import main

main()
