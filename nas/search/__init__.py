"""Search: from a request to a winner.

``start.py`` begins or resumes a study, ``loop.py`` is the search itself, ``best.py``
chooses and retrains the winner, ``train_one.py`` trains a single architecture,
``resolve.py`` finds one by name, file or trial.
"""
