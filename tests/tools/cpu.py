"""The plan that the tests run the real model by."""

import torch

from parakeet_worker.model.device import Plan

CPU = Plan(torch.device("cpu"), torch.float32, batch_seconds=120.0)

# Two threads that spin for each other on two busy cores are many times slower than one.
torch.set_num_threads(1)
