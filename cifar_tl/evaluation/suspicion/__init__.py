"""Suspicion: which labels and images of a data set a person should look at. Belongs to the data and a pretrained backbone, not to a run.

    linear.py        a linear model of frozen features in closed form, from sums over the images it is made of
    cross_validation.py  what such models, made a little better, say of images that they have not seen
    labels.py        labels that are probably wrong, by confident learning
    neighbours.py    each image's nearest neighbours among the features; images that have none: outliers
    duplicates.py    images that are there twice: near in the features, then compared pixel by pixel
    search.py        all of these, over all splits
    result.py        what was found, on disk; state.py how far one is

numpy alone, with cleanlab, scikit-learn and scipy imported where they are used. Level 1: `evaluation.audit` brings the features.
"""
