"""Benchmarks: what this program gains over the loops people write themselves, and how near it comes to what the machine can do.

    throughput.py         trained images a second, against bare steps and torchvision's training loop
    evaluation.py         evaluated images a second, against bare forward passes and what inference engines make of the network
    time_to_accuracy.py   seconds from nothing to an accuracy on test, against torchvision's training loop
    prefix_cache.py       what the cache of frozen stages costs and gives
    predict.py            from the bytes of a picture to its answer
    memory.py             peak memory of a run, on a small and on a large data set
    dashboard.py          what one refresh of the live view costs the server

Each runs as `python -m bench.NAME` and prints a Markdown table, or with `--json` one object. What they share:

    common.py             the machine in words, timing, tables, a contender in a process of its own
    contender.py          the other end of that process
    networks.py           networks, devices and batches that all contenders are given alike
    ours.py               this program's steps, as a run makes them
    peers.py              the loops that training is compared with; torchvision_loop.py two of them
    forward.py            the forward passes that evaluation and prediction are compared with

What is measured, and why the comparisons are fair, is in README.md. Measuring changes nothing in the product, which does not import this.
"""
