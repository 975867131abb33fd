"""Training jobs of torch, Lightning and transformers whose whole batches take 0.8 GB; run by the nursery.

Each trains *STEPS* steps from a fixed seed, on whole batches (``plain``) or on slices (``governor``), and returns its
last loss; that of transformers returns the mean.
"""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Iterator
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lightning
    import torch
    import transformers
    from torch import nn

import shm_monitor as sm
from shm_monitor.integrations import lightning as of_lightning
from shm_monitor.integrations import transformers as of_transformers
from shm_monitor.integrations.torch import MicroBatch

STEPS = 8
LOAD_SECONDS = 1.25
ROWS, INPUTS, WIDTH = 65_536, 16, 1024  # three activations of 256 MB
SEQUENCES, TOKENS, VOCABULARY = 224, 32, 8192  # logits of 1 MB a sequence, with loss and gradient 3.5 MB
MAX_PAUSE_SECONDS = 2.0


def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the batches of one run, the same for each, none sooner than LOAD_SECONDS after the one before."""
    generator, began = torch.Generator().manual_seed(1), time.monotonic()
    for number in range(STEPS):
        wait_for(number, began)
        x = torch.randn(ROWS, INPUTS, generator=generator)
        yield x, x.sum(1, keepdim=True)


def wait_for(number: int, began: float) -> None:
    """Wait until batch *number* of a run that *began* then is there: the run outlasts the neighbour's growth."""
    time.sleep(max(began + number * LOAD_SECONDS - time.monotonic(), 0.0))


def model() -> nn.Module:
    """Return the model of torch and Lightning."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(INPUTS, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))


def micro_of(size_of: str, full: int) -> Any:
    """Return what cuts a batch of *full* rows; None for a plain job."""
    return MicroBatch(full, reader=sm.attach(watch=["memory"])) if size_of == "governor" else None


def torch_loop(size_of: str) -> float:
    """Train as in docs/examples/torch_loop.py."""
    net, micro = model(), micro_of(size_of, ROWS)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for x, y in batches():
        optimizer.zero_grad()
        loss = 0.0
        for (xs, ys), weight in [((x, y), 1.0)] if micro is None else micro.accumulate(net, x, y):
            part = nn.functional.mse_loss(net(xs), ys) * weight
            part.backward()
            loss += float(part)
        optimizer.step()
    return loss


class Line(lightning.LightningModule):
    """The same by Lightning; manual optimization, for no callback can cut a batch of the automatic one."""

    def __init__(self, size_of: str) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net, self.micro, self.last = model(), micro_of(size_of, ROWS), 0.0

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.last = 0.0
        whole = [(batch, 1.0)]
        for (xs, ys), weight in of_lightning.accumulate(self, self.micro, *batch) if self.micro else whole:
            loss = nn.functional.mse_loss(self.net(xs), ys) * weight
            self.manual_backward(loss)
            self.last += float(loss)
        optimizer.step()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Batches(torch.utils.data.IterableDataset[Any]):
    """``batches`` as a data set of whole batches."""

    def __iter__(self) -> Iterator[Any]:
        return batches()


def lightning_fit(size_of: str) -> float:
    """Fit with the callback where governed."""
    callback = of_lightning.PressureCallback(max_pause=MAX_PAUSE_SECONDS)
    module = Line(size_of)
    with tempfile.TemporaryDirectory() as folder:
        lightning.Trainer(
            max_epochs=1,
            accelerator="cpu",
            callbacks=[callback] if size_of == "governor" else [],
            default_root_dir=folder,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        ).fit(module, torch.utils.data.DataLoader(Batches(), batch_size=None))
    return module.last


class Sliced(of_transformers.MicroBatchMixin, transformers.Trainer):
    """A Trainer over slices."""


class Sequences(torch.utils.data.Dataset[Any]):
    """Tokens by chance; of some sequences only a part carries loss."""

    def __init__(self) -> None:
        self._began, self._taken = time.monotonic(), 0
        generator = torch.Generator().manual_seed(1)
        self.ids = torch.randint(0, VOCABULARY, (STEPS * SEQUENCES, TOKENS), generator=generator)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, at: int) -> dict[str, torch.Tensor]:
        if self._taken % SEQUENCES == 0:
            wait_for(self._taken // SEQUENCES, self._began)
        self._taken += 1
        labels = self.ids[at].clone()
        labels[: at % 7] = -100
        return {"input_ids": self.ids[at], "labels": labels}


def transformers_train(size_of: str) -> float:
    """Train a GPT-2 whose logits are most of its memory."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=VOCABULARY, n_positions=TOKENS, n_embd=16, n_layer=1, n_head=2)
    config.attn_pdrop = config.embd_pdrop = config.resid_pdrop = 0.0  # a split batch would draw other numbers
    kind = Sliced if size_of == "governor" else transformers.Trainer
    callbacks = [of_transformers.PressureCallback(max_pause=MAX_PAUSE_SECONDS)] if size_of == "governor" else []
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=SEQUENCES,
            max_steps=STEPS,
            learning_rate=1e-3,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            logging_strategy="no",
            seed=1,
        )
        net = transformers.GPT2LMHeadModel(config)
        trainer = kind(net, arguments, train_dataset=Sequences(), callbacks=callbacks)
        if size_of == "governor":
            trainer.micro = micro_of(size_of, SEQUENCES)
        return float(trainer.train().training_loss)


JOBS = {"torch": torch_loop, "lightning": lightning_fit, "transformers": transformers_train}


def quiet() -> None:
    """Have the frameworks say nothing of tips and devices."""
    for name in ("lightning.pytorch", "lightning", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
