"""Studies, stored with Optuna: the only package that imports it.

::

    study.py     Study: ask, record, tell, candidates
    folders.py   begins, opens and lists studies in their folders
    postgres.py  a study in PostgreSQL: its lock, and retries over outages
    optuna_internals.py  what Optuna does not promise to keep, in one place
    storages.py  opens a storage; turns what it raises into one line
    settings.py  what a study keeps from its start: study.toml
    journal.py   the lock on a study's folder; a journal that is packed, or cut at its end
    records.py   a candidate as a trial's attributes and back
    winners.py   reads the reports of its winners

Importing the package loads no optuna.
"""
