"""Run by `test_distributed.py` under torchrun: one DPO run shared by two processes on the CPU."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import PartialState
from conftest import tiny_llama

from course_lib import PreferenceConfig, PreferenceTrainer
from course_lib.world import build_tokenizer, preference_records

torch.set_num_threads(1)
state = PartialState(cpu=True)
tokenizer = build_tokenizer()
config = PreferenceConfig(batch_size=8, learning_rate=1e-3, progress=False, log_every=1)
trainer = PreferenceTrainer(tiny_llama(len(tokenizer)), tokenizer, preference_records(40), config)
history = trainer.train()
mine = torch.cat([p.detach().flatten() for p in trainer.policy.parameters()])
both = [torch.zeros_like(mine) for _ in range(2)]
dist.all_gather(both, mine)
if state.is_main_process:
    result = {"steps": len(history.rows), "first_loss": history.rows[0]["loss"], "same": torch.equal(*both)}
    Path(sys.argv[1]).write_text(json.dumps(result))
dist.destroy_process_group()
