"""A training loop whose batch runs in as many slices as fit (pip install "shm-monitor[torch]")."""

import torch
from torch import nn

from shm_monitor.integrations.torch import DataLoader, MicroBatch

model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
scaler = torch.amp.GradScaler("cpu", enabled=False)  # on a GPU: "cuda", enabled
points = torch.randn(256, 8)
loader = DataLoader(torch.utils.data.TensorDataset(points, points.sum(1, keepdim=True)), batch_size=64)
micro = MicroBatch(full=64, floor=4)

for _ in range(5):
    for x, y in loader:
        optimizer.zero_grad()
        for (xs, ys), weight in micro.accumulate(model, x, y):
            loss = nn.functional.mse_loss(model(xs), ys)
            scaler.scale(loss * weight).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # of the whole batch: after its last slice
        scaler.step(optimizer)
        scaler.update()
print(f"loss {loss.item():.3f}")
