"""Where candidates come from: a regularised evolution that knows sizes.

``evolution.py`` proposes, ``starters.py`` has the plain nets that it begins with,
``mutation.py`` changes an architecture, ``surrogate.py`` predicts which change is worth a
training.
"""
