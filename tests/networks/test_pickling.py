"""A network is pickled as it is, even while another thread computes with other parameters in it."""

import pickle
import threading

import torch

from limbeck.networks.flat import flat_network


def test_pickling_while_computing() -> None:
    network = flat_network("ConvNetD2-w4", (3, 8, 8), 3)
    theta, x = network.initial(torch.Generator().manual_seed(0)), torch.zeros(2, 3, 8, 8)
    over = threading.Event()

    def compute() -> None:
        while not over.is_set():
            network(theta, x)

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        copies = [pickle.loads(pickle.dumps(network)) for _ in range(200)]
    finally:
        over.set()
        thread.join()
    assert all(torch.equal(copy(theta, x), network(theta, x)) for copy in copies[::50])
    assert pickle.loads(pickle.dumps(copies[0])).num_parameters == network.num_parameters
