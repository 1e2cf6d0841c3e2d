"""Who belongs to a group, and what the machine wants for it."""

import os

import pytest

from cifar_tl import group
from cifar_tl.group import ALONE, Group, outside_any_group

NCCL = ("NCCL_P2P_DISABLE", "NCCL_IB_DISABLE")


class Joined:
    """What Accelerate's PartialState would be, without waiting for others."""

    num_processes, process_index, local_process_index = 4, 3, 1

    def __init__(self, **_settings: object) -> None:
        self.seen = {name: os.environ.get(name) for name in NCCL}


@pytest.fixture
def of_four(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(group, "PartialState", Joined)
    for name in NCCL:  # set once, so that what the code sets is taken back
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize(("device", "has_support", "expected"), [("cuda", False, "1"), ("cuda", True, None), ("cpu", False, None)])
def test_gpus_that_cannot_reach_each_other_directly_are_told_not_to_try(of_four, monkeypatch, device, has_support, expected):
    monkeypatch.setattr(group, "check_cuda_p2p_ib_support", lambda: has_support)
    joined = Group.join(device)
    assert joined._state.seen == dict.fromkeys(NCCL, expected)
    assert (joined.size, joined.index, joined.local_size, joined.local_index) == (4, 3, 2, 1)


def test_one_process_is_alone(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert Group.join("cpu") is ALONE


def test_outside_any_group_nothing_names_one_and_afterwards_it_does_again(monkeypatch):
    named = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "host", "OMPI_COMM_WORLD_SIZE": "2", "PMI_RANK": "1"}
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    with outside_any_group():
        assert not named.keys() & os.environ.keys()
    assert {name: os.environ.get(name) for name in named} == named
