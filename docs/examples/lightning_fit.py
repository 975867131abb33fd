"""A Lightning run that pauses, and stops with a checkpoint at the end of memory (pip install "shm-monitor[lightning]")."""

import lightning
import torch

from shm_monitor import Level
from shm_monitor.integrations.lightning import PressureCallback


class Line(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        return ((self.layer(batch[0]) - batch[0].sum(1, keepdim=True)) ** 2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(256, 4)), batch_size=32)
callback = PressureCallback(pause_on=Level.PRUNE, stop_on=Level.CRITICAL, max_pause=30.0)
trainer = lightning.Trainer(
    max_epochs=2, accelerator="cpu", callbacks=[callback], logger=False, enable_checkpointing=False
)
trainer.fit(Line(), loader)
print(f"steps {trainer.global_step}, pauses {callback.pauses_count}")
