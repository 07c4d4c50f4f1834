"""The tool from Python: what `import nas` offers.

::

    data.py      Data: a data set from arrays, files, a torch Dataset or by its name
    study.py     search, open_study; Study: tables, the figure, the winner
    trained.py   Trained: a trained net, its model, report and files
    networks.py  train, count; a torch module or a name to an architecture
    running.py   what the command line and these do alike
    progress.py  how it comes along: terminal, notebook
    checks.py    the ranges of the options
    settings.py  what the environment says
    words.py     messages that name keywords instead of options

The command line calls ``running.py``, too, so both have the same defaults and errors.
Nothing is imported here: `nas front` needs a part of it, and no torch.
"""
