"""Plain PyTorch, data parallel: the oil temperature from the loads. Runs under torchrun as well.

    torchrun --nproc-per-node 2 ddp.py joined.csv
"""

import argparse
import csv

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def read(path: str) -> TensorDataset:
    """The numeric columns of the file, standardised: loads as inputs, oil temperature as target."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name not in ("date", "OT")]
    inputs = torch.tensor([[float(row[name]) for name in names] for row in rows])
    target = torch.tensor([[float(row["OT"])] for row in rows])
    standard = lambda x: (x - x.mean(0)) / (x.std(0) + 1e-6)
    return TensorDataset(standard(inputs), standard(target))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("table")
    parser.add_argument("--epochs", type=int, default=8)
    arguments = parser.parse_args()

    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(1)
    data = read(arguments.table)
    sampler = DistributedSampler(data, seed=1)
    loader = DataLoader(data, batch_size=64, sampler=sampler)
    width = data.tensors[0].shape[1]
    network = torch.nn.Sequential(torch.nn.Linear(width, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    model = DistributedDataParallel(network)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    for epoch in range(arguments.epochs):
        sampler.set_epoch(epoch)
        total = torch.zeros(2)
        for x, y in loader:
            loss = torch.nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += torch.tensor([loss.item() * len(x), len(x)])
        dist.all_reduce(total)
        if rank == 0:
            print(f"epoch {epoch + 1} of {arguments.epochs} on {size} ranks: loss {total[0] / total[1]:.4f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
