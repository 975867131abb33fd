"""A Trainer over slices, which stops with a checkpoint at the end of memory (pip install "shm-monitor[transformers]")."""

import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from shm_monitor import Level
from shm_monitor.integrations.transformers import MicroBatchMixin, PressureCallback


class SlicedTrainer(MicroBatchMixin, Trainer):
    pass


tokens = [{"input_ids": ids, "labels": ids} for ids in torch.randint(0, 32, (64, 12))]
model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=12, n_embd=16, n_layer=1, n_head=2))
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(folder, per_device_train_batch_size=16, max_steps=8, report_to=[], use_cpu=True)
    callback = PressureCallback(stop_on=Level.CRITICAL)
    trainer = SlicedTrainer(model, arguments, train_dataset=tokens, callbacks=[callback])
    trainer.train()
print(f"steps {trainer.state.global_step}")
