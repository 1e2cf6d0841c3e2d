"""cifar_tl: interactive transfer learning for image classification. This page is the map.

    data/        where images come from, how they are stored, split, augmented and put on the device
    models/      which backbones there are, their weights, and how each is cut into stages under a new head
    training/    one run: prepare, train, keep, test; the worker process and the cache of frozen stages
    evaluation/  what a trained model says about every image, as arrays, and what the arrays tell
    runs/        the run folder: events, log, status, start and stop; the contract between engine and dashboard
    sweeps/      many runs with different settings, chosen by Optuna
    advice/      before training: which backbone, which learning rate
    ui/          the dashboard: pages, charts, components; never imports the engine
    http/        the same answers for programs, as JSON beside the pages; off unless asked for
    inference.py, probe.py      what runs in the prediction process: answers for pictures, time of an epoch
    commands.py, __main__.py    the command line; sweep_commands.py, advice_commands.py parts of it
    config.py, settings.py, presets.py            every setting, declared once
    paths.py, errors.py, answers.py, devices.py   places, errors, plain answers, the device; used by all
    group.py     the processes that train one run together

Importing this package imports nothing.
"""

__version__ = "0.1.0"
