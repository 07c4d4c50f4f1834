"""The Python API: the functions and classes of `import nas`.

::

    data.py      Data: a data set from arrays, files, a torch Dataset or by its name
    study.py     search, open_study; Study: tables, the figure, the winner
    trained.py   Trained: a trained net, its model, report and files
    networks.py  train, count; a torch module or a name to an architecture
    searching.py run_search, shared with the command line
    training.py  run_best, run_train, shared with the command line
    workers.py   the start of workers, shared with the command line
    progress.py  progress displays: terminal, notebook
    checks.py    the ranges of the options
    settings.py  defaults from the environment
    words.py     messages that name keywords instead of options

The shared functions give both the same defaults and errors. Nothing is imported here,
as `nas front` needs a part of this package without torch.
"""
