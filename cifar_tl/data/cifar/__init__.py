"""CIFAR-100 and CIFAR-10 as published: `published` what and where, `files` reading, `source` finding, fetching and storing."""
