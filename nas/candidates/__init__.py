"""Candidates, and the rules that judge them: pure arithmetic.

``candidate.py`` holds a candidate and the front, ``pareto.py`` dominance and
hypervolume, ``pruning.py`` when a training is stopped early.
"""
