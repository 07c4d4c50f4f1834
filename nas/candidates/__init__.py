"""What is known of a candidate, and the rules that judge it: pure arithmetic.

``candidate.py`` holds a candidate and the front, ``pareto.py`` dominance and
hypervolume, ``pruning.py`` when a training is stopped early.
"""
