"""The parts of the Predict page: how pictures come in, what runs say of them, and a closer look at one."""
