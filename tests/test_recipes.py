"""Recipes: what they may say, what a dry run knows, what a run leaves behind, and how each mistake is told."""

import json
import math
import time

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from course_lib import estimate_memory, hub, recipes
from course_lib.cli import main
from course_lib.models import load_policy, smollm2_folder
from course_lib.recipes import files, folder, planning, read_recipe, recipe_names, run_recipe
from course_lib.recipes.card import card
from course_lib.recipes.methods import METHOD_KINDS
from course_lib.recipes.running import _Execution
from course_lib.trainers import Part, TrainingError
from course_lib.world import preference_records

SMALL = ["data.limit=48", "held_out_limit=16", "evaluation.prompts=8", "samples=2", "batch_size=8", "log_every=1"]
VARIANTS = {"online-cdpo", "online-robust", "online-ipo"}  # online-dpo with another loss
TINY = [name for name in recipe_names() if name.startswith("tiny/")]


def small(name="tiny/dpo", *changes, out):
    """A few records, of which rollouts of nine leave a smaller one over."""
    online = ["prompts_per_rollout=9"] if METHOD_KINDS[name.removeprefix("tiny/")].online else []
    return read_recipe(name, [*SMALL, *online, f"output={out}", *changes])


# reading


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_written_in_full_reads_back_as_itself(name, tmp_path):
    recipe = read_recipe(name)
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(recipe.to_dict()))
    assert read_recipe(tmp_path / "again.yaml").to_dict() == recipe.to_dict()


def test_an_explained_recipe_is_the_recipe_and_says_what_each_setting_means(tmp_path):
    text = recipes.explained(read_recipe("tiny/ppo"))
    (tmp_path / "mine.yaml").write_text(text)
    assert read_recipe(tmp_path / "mine.yaml").to_dict() == read_recipe("tiny/ppo").to_dict()
    assert "# highest learning rate of AdamW" in text and "# a reward model: shipped" in text


def test_a_recipe_of_the_package_is_read_by_its_name():
    assert isinstance(read_recipe("tiny/dpo"), recipes.Recipe)


def test_the_list_of_recipes_is_what_each_says_of_itself():
    assert recipes.abouts() == {name: read_recipe(name).about for name in recipe_names()}


def test_every_method_has_a_tiny_recipe():
    assert {read_recipe(name).method for name in TINY} >= set(METHOD_KINDS) - VARIANTS


@pytest.mark.parametrize("change, where, value", [
    ("training.learning_rate=1e-4", ("training", "learning_rate"), 1e-4),
    ("learning_rate=2E+1", ("training", "learning_rate"), 20.0),
    ("beta=5", ("training", "beta"), 5),
    ("model.lora_targets=[q_proj, v_proj]", ("model", "lora_targets"), ["q_proj", "v_proj"]),
    ("lora_rank=8", ("model", "lora_rank"), 8),
    ("eval_every=null", ("training", "eval_every"), None),
    ("output=elsewhere", ("output",), "elsewhere"),
])  # fmt: skip
def test_a_change_is_written_where_it_belongs(change, where, value):
    found = read_recipe("tiny/dpo", [change, *(["model.lora_rank=8"] if "targets" in change else [])]).to_dict()
    for key in where:
        found = found[key]
    assert found == value and type(found) is type(value)


def test_a_part_of_the_reward_can_be_added_by_a_change():
    parts = read_recipe("tiny/ppo", ["reward.truth.function=gold", "reward.truth.weight=0.5"]).reward
    assert set(parts) == {"reward-model", "truth"} and parts["truth"].weight == 0.5


def test_files_beside_a_recipe_are_found_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "pairs.jsonl").write_text("{}")
    (tmp_path / "mine.yaml").write_text("method: dpo\ndata: {source: pairs.jsonl}\n")
    monkeypatch.chdir("/")
    assert read_recipe(tmp_path / "mine.yaml").data.source == str(tmp_path / "pairs.jsonl")


# mistakes


@pytest.fixture
def no_hub(monkeypatch):
    for module in (hub, files, planning):
        monkeypatch.setattr(module, "is_reachable", lambda: False)


MISTAKES = [
    (["tiny/dpq"], "did you mean 'tiny/dpo'?"),
    (["missing.yaml"], "there is no file missing.yaml"),
    (["tiny/dpo", "training.learning_rte=1"], "did you mean 'training.learning_rate'?"),
    (["tiny/dpo", "lerning_rate=1"], "did you mean 'training.learning_rate'?"),
    (["tiny/dpo", "model.nam=x"], "did you mean 'model.name'?"),
    (["tiny/dpo", "clip_range=0.2"], "there is no key 'clip_range'"),
    (["tiny/ppo", "limits=4"], "did you mean 'data.limit'?"),
    (["tiny/dpo", "learning_rate=fast"], "training.learning_rate is a number above 0; got 'fast'"),
    (["tiny/dpo", "batch_size=1.5"], "training.batch_size is a whole number"),
    (["tiny/dpo", "data.limit=many"], "data.limit is None or a whole number"),
    (["tiny/dpo", "shuffle=perhaps"], "data.shuffle is True or False"),
    (["tiny/dpo", "strategy=zero9"], "hardware.strategy is one of"),
    (["tiny/dpo", "hardware.gpus=4"], "does not go with gpus=4"),
    (["tiny/dpo", "hardware.gpu=H9"], "hardware.gpu is None or one of"),
    (["tiny/dpo", "learning_rate"], "is no change: write key=value"),
    (["tiny/dpo", "learning_rate=[1"], "is not YAML"),
    (["tiny/dpo", "training=5"], "there is no key 'training'"),
    (["tiny/dpo", "method=dqn"], "method is one of"),
    (["tiny/dpo", "method=ppo"], "there is no key 'training.beta'"),
    (["tiny/dpo", "reward.x.function=gold"], "dpo takes no reward"),
    (["tiny/ppo", "reward.x.weight=2"], "either a model or a function"),
    (["tiny/ppo", "reward.reward-model.modle=x"], "did you mean 'reward.reward-model.model'?"),
    (["tiny/ppo", "reward.reward-model.model=null", "reward.reward-model.function=mine.py:score"], "no file mine.py"),
    (["tiny/dpo", "quantization=nf4"], "give model.lora_rank too"),
    (["tiny/dpo", "gamma=1"], "takes no gamma"),
    (["tiny/dpo", "trackers=[tensorbord]"], "trackers are of"),
    (["tiny/dpo", "held_out_split=null"], "give data.held_out_split"),
    (["tiny/dpo", "data.source=nobody/nothing"], "could not load the data set 'nobody/nothing'"),
    (["tiny/dpo", "data.source=pairs.jsonl"], "there is no file pairs.jsonl"),
    (["tiny/dpo", "model.name=nobody/nothing"], "could not load 'nobody/nothing'"),
    (["tiny/dpo", "model.name=./nothing"], "there is no folder"),
]


@pytest.mark.parametrize("words, reason", MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_line_and_nothing_is_written(words, reason, tmp_path, monkeypatch, capsys, no_hub):
    monkeypatch.chdir(tmp_path)
    small_run = [] if "tiny/dpo" not in words else ["data.limit=32", "held_out_limit=8"]
    small_run = [] if any(word.startswith(("data.limit", "method")) for word in words) else small_run
    with pytest.raises(SystemExit) as stopped:
        main(["train", *words, *small_run])
    out, error = capsys.readouterr()
    assert stopped.value.code == 2 and not out
    assert reason in error and error.count("\n") == 1, error
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_recipe_is_told_by_its_line(tmp_path):
    (tmp_path / "bad.yaml").write_text("method: dpo\nmodel: {name: x\n")
    with pytest.raises(recipes.RecipeError, match="bad.yaml, line 3 is not YAML: expected ',' or '}'"):
        read_recipe(tmp_path / "bad.yaml")
    (tmp_path / "online.yaml").write_text("method: ppo\n")
    with pytest.raises(recipes.RecipeError, match="ppo learns from its own samples and needs a reward"):
        read_recipe(tmp_path / "online.yaml")
    (tmp_path / "twice.yaml").write_text("method: dpo\nmethod: ppo\n")
    with pytest.raises(recipes.RecipeError, match="line 2 is not YAML: 'method' stands twice"):
        read_recipe(tmp_path / "twice.yaml")


def test_a_name_on_the_hub_is_answered_at_once_without_internet(tmp_path, monkeypatch):
    monkeypatch.setattr(hub.socket, "create_connection", lambda *a, **k: (_ for _ in ()).throw(OSError("no network")))
    hub.is_reachable.cache_clear()
    began = time.perf_counter()
    with pytest.raises(OSError, match="could not load 'nobody/nothing'"):
        run_recipe(small("tiny/dpo", "model.name=nobody/nothing", out=tmp_path / "run"))
    hub.is_reachable.cache_clear()
    assert time.perf_counter() - began < 4


@pytest.mark.parametrize("name, on_the_hub", [
    ("owner/model-1.5", True), ("gpt2", False), ("./there", False), ("runs/x/model", False), ("C:\\x", False),
])  # fmt: skip
def test_a_name_on_the_hub_is_told_from_a_path(name, on_the_hub):
    assert hub.looks_like_hub_name(name) == on_the_hub


def test_a_name_on_the_hub_that_was_fetched_before_needs_no_internet(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    assert not hub.is_cached("nobody/nothing")
    place = tmp_path / "models--nobody--nothing" / "snapshots" / "0"
    place.mkdir(parents=True)
    (place / "config.json").write_text("{}")
    (tmp_path / "models--nobody--nothing" / "refs").mkdir()
    (tmp_path / "models--nobody--nothing" / "refs" / "main").write_text("0")
    assert hub.is_cached("nobody/nothing")


def test_a_model_out_of_reach_is_refused_before_torch_is_imported(no_hub):
    with pytest.raises(recipes.RecipeError, match="could not load 'a/b'"):
        recipes.refuse_unreachable_model("tiny/dpo", ["name=a/b"])
    assert recipes.refuse_unreachable_model("tiny/dpo", []) is None


def test_a_folder_here_is_no_name_on_the_hub(tmp_path, monkeypatch):
    (tmp_path / "owner" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not hub.looks_like_hub_name("owner/model")


def test_columns_that_do_not_fit_are_named(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"question": "a", "good": "b", "bad": "c"}\n')
    with pytest.raises(SystemExit):
        main(["train", "tiny/dpo", "data.source=rows.jsonl", "held_out_split=train", "judge=null"])
    error = capsys.readouterr().err
    assert "'question', 'good', 'bad'" in error and "columns=" in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_full_disk_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr("course_lib.recipes.building.shutil.disk_usage", lambda path: usage)
    with pytest.raises(recipes.RecipeError, match=r"will leave 0.0\d GB .* 0.00 GB free"):
        run_recipe(small(out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_what_fails_before_the_first_checkpoint_leaves_no_folder(tmp_path):
    (tmp_path / "judge.py").write_text("def judge(prompts, completions):\n    raise RuntimeError('no opinion')\n")
    with pytest.raises(RuntimeError, match="no opinion"):
        run_recipe(small("tiny/dpo", f"judge={tmp_path}/judge.py:judge", out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_tracker_whose_package_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("course_lib.recipes.writing.get_available_trackers", list)
    with pytest.raises(recipes.RecipeError, match="pip install wandb"):
        run_recipe(small("tiny/dpo", "trackers=[wandb]", out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text, reason", [
    ("method: [dpo]", "method is one of"),
    ("method: dpo\ntraining: []", "training is a section"),
    ("method: dpo\ndata: [1]", "data is a section"),
    ("method: ppo\nreward: 5", "reward has parts by name"),
    ("method: dpo\ntrackers: 5", "trackers is a list of names"),
    ("method: dpo\ntrackers: [[a]]", "trackers is a list of names"),
    ("method: dpo\n? [a]\n: 1", "a key is a word"),
    ("- dpo", "is no recipe"),
    ("", "is no recipe"),
    ("method: dpo\ntraining: {batch_size: 2, accumulation: 4}", "training: a batch of 2 cannot be cut"),
    ("method: dpo\nhardware: {strategy: zero2, gpus: 2}\ntraining: {optimizer: adamw-8bit}", "no training.optimizer"),
    ("method: reward\nevaluation: {judge: gold}\ndata: {held_out_split: test}", "evaluation.judge out"),
])  # fmt: skip
def test_odd_yaml_is_told_in_a_line(text, reason, tmp_path):
    (tmp_path / "odd.yaml").write_text(text)
    with pytest.raises(recipes.RecipeError, match=reason):
        read_recipe(tmp_path / "odd.yaml", ["data.limit=3"] if "data" in text and "[" in text else [])


def test_a_part_of_a_reward_is_written_in_full_and_can_be_taken_out():
    with pytest.raises(recipes.RecipeError, match="there is no key 'model'"):
        read_recipe("tiny/ppo", ["model=smollm2"])
    parts = read_recipe("tiny/ppo", ["reward.truth.function=gold", "reward.reward-model=null"]).reward
    assert set(parts) == {"truth"}


def test_the_best_model_can_be_kept(tmp_path):
    recipe = small("tiny/dpo", "eval_every=2", "keep_best=-eval_loss", out=tmp_path / "run")
    run_recipe(recipe)
    assert (tmp_path / "run" / "checkpoints" / "best" / "model.safetensors").is_file()


# dry runs


def test_a_dry_run_prints_what_python_returns_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "tiny/dpo", "data.limit=64", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(json.dumps(recipes.plan(read_recipe("tiny/dpo", ["data.limit=64"])).to_dict()))
    assert found["rows"]["training"] == 64 and found["steps"] == 2 and found["memory"]["fits"]
    assert main(["train", "tiny/dpo", "data.limit=64", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "64 rows" in printed and "fits" in printed and not list(tmp_path.iterdir())


def test_changes_may_stand_behind_options(capsys):
    assert main(["train", "tiny/dpo", "--dry-run", "--json", "data.limit=64"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"]["training"] == 64


@pytest.mark.parametrize("over_long, rows", [("drop", 1), ("truncate", 2)])
def test_a_plan_holds_rows_to_the_length_that_the_run_does(over_long, rows, tmp_path):
    short = {"prompt": "what is a banana?", "chosen": "a fruit.", "rejected": "an animal."}
    lines = [short, short | {"chosen": "a fruit. " * 40}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    changes = [f"data.source={tmp_path}/rows.jsonl", "held_out_split=null", "judge=null", "eval_every=null"]
    found = recipes.plan(read_recipe("tiny/dpo", [*changes, "max_length=32", f"over_long={over_long}"])).rows
    assert found.training == rows and found.longest <= 32 and found.tokens <= 32


def test_a_plan_says_in_its_text_what_it_knows():
    found = recipes.plan(read_recipe("full/sft"))
    assert isinstance(found, recipes.Plan) and f"{found.hours:.2g} hours" in str(found)
    assert "each of 8 GPUs (zero2)" in str(found) and all(len(line) < 160 for line in str(found).splitlines())


def test_a_dry_run_counts_the_tokens_of_the_rows_themselves():
    found = recipes.plan(read_recipe("tiny/dpo", ["data.limit=32"])).rows
    _, tokenizer = load_policy("pocket-world-sft")
    rows = preference_records(32)
    lengths = [max(len(tokenizer.apply_chat_template(row["prompt"] + row[side], return_dict=False))
                   for side in ("chosen", "rejected")) for row in rows]  # fmt: skip
    assert abs(found.longest - max(lengths)) <= 1 and abs(found.tokens - sum(lengths) / 32) <= 2


def test_a_run_that_does_not_fit_says_so_with_its_exit_status_and_what_would_help(capsys):
    words = ["train", "full/dpo", "gpus=1", "strategy=single", "gpu=RTX-4090-24GB", "--dry-run"]
    assert main(words) == 1
    assert "DOES NOT FIT" in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in recipe_names() if not name.startswith("tiny/")])
def test_larger_recipes_are_planned_without_their_weights(name, no_hub):
    if read_recipe(name).model.name == "smollm2" and not (smollm2_folder() / "config.json").is_file():
        pytest.skip("smollm2 is not fetched")
    assert recipes.plan(read_recipe(name)).fits


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.startswith("full/")])
def test_full_size_recipes_state_what_the_calculators_say(name, no_hub):
    recipe, found = read_recipe(name), recipes.plan(read_recipe(name))
    assert found.memory.peak / 1e9 == pytest.approx(recipe.plan.memory_gb, rel=0.01)
    assert found.hours == pytest.approx(recipe.plan.hours, rel=0.02)


def test_the_memory_of_a_plan_is_that_of_the_step_it_describes(no_hub):
    found = recipes.plan(read_recipe("full/sft"))
    by_hand = estimate_memory(
        "llama-3-8b", "sft", precision="bf16", optimizer="adamw-master", gradient_checkpointing=True, attention="sdpa",
        batch_size=4, sequence_length=2048, completion_length=round(2048 * 800 / 1200), logits="chunked",
        zero_stage=2, gpus=8,
    )  # fmt: skip
    assert found.memory.peak == by_hand.peak


def test_planned_hours_follow_from_tokens_and_speed(no_hub):
    found = recipes.plan(read_recipe("full/sft"))
    tokens = found.rows.training * found.rows.tokens
    assert found.hours == pytest.approx(tokens / found.speed.total_tokens_per_second / 3600, rel=0.01)


# starting several processes


def test_one_process_needs_no_launcher_and_several_one_alone(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    two = read_recipe("tiny/dpo", ["gpus=2", "strategy=ddp"])
    assert not recipes.needs_launch(read_recipe("tiny/dpo")) and recipes.needs_launch(two)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "1")
    assert not recipes.needs_launch(two) and not recipes.is_main_process()
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.setenv("COURSE_LAUNCHED", "1")  # whatever the launcher tells its processes, they start no more
    assert not recipes.needs_launch(two)


def test_a_launch_names_the_strategy_and_hands_the_words_on(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    words = recipes.launch_command(read_recipe("full/dpo"), ["full/dpo", "beta=0.3"])
    config = words[words.index("--config_file") + 1]
    assert config.endswith("strategies/zero2.yaml") and words[words.index("--num_processes") + 1] == "8"
    assert words[-5:] == ["-m", "course_lib", "train", "full/dpo", "beta=0.3"]


@pytest.mark.parametrize("found, changes, reason", [
    (0, [], "has no GPUs"), (4, [], "has 4 GPUs"), (8, ["gpus=16"], "spans 2 nodes"),
])  # fmt: skip
def test_a_recipe_for_other_machines_is_not_started_here(found, changes, reason, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    with pytest.raises(recipes.RecipeError, match=reason):
        recipes.launch_command(read_recipe("full/dpo", changes), [])


def test_libraries_are_kept_quiet_so_that_json_is_all_that_is_printed(monkeypatch):
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    recipes.quieten()
    import os

    assert torch.cuda.is_available() or os.environ["DS_ACCELERATOR"] == "cpu"


@pytest.mark.slow
def test_two_processes_run_a_recipe_to_the_same_losses(tmp_path):
    import subprocess
    import sys

    recipe = small(out=tmp_path / "one")
    run_recipe(recipe)
    words = [*SMALL, "gpus=2", "strategy=ddp", f"output={tmp_path}/two"]
    command = [sys.executable, "-m", "course_lib", "train", "tiny/dpo", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["steps"] == 6  # printed by one of them, once
    rows = [[json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
            for name in ("one", "two")]  # fmt: skip
    assert [row["loss"] for row in rows[0]] == pytest.approx([row["loss"] for row in rows[1]], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["zero2", "zero3-offload"])
def test_the_settings_of_full_recipes_give_the_losses_of_one_process(strategy, tmp_path):
    """bf16 weights and sums, recomputed activations, optimiser in shards: to what bf16 rounds."""
    import subprocess
    import sys

    pytest.importorskip("deepspeed")
    halves = ["model.dtype=bf16", "mixed_precision=bf16", "gradient_checkpointing=true"]
    halves += ["beta=1.0", "learning_rate=1e-3"]  # so that losses move by much more than bf16 rounds
    found = []
    for changes in ([], ["gpus=2", f"strategy={strategy}"]):
        words = [*SMALL, *halves, *changes, f"output={tmp_path}/{len(found)}", "--json"]
        command = [sys.executable, "-m", "course_lib", "train", "tiny/dpo", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        assert json.loads(done.stdout)["steps"] == 6
        rows = (tmp_path / str(len(found)) / "metrics.jsonl").read_text().splitlines()
        found.append([json.loads(line)["loss"] for line in rows])
    alone, shared = found
    assert shared == pytest.approx(alone, abs=0.02) and max(alone) - min(alone) > 0.2


# runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe") / "run"
    return folder, run_recipe(small(out=folder))


def test_a_run_leaves_a_model_that_transformers_loads(run):
    folder, summary = run
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    start, _ = load_policy("pocket-world-sft")
    assert summary["model"] == str(folder / "model")
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), start.parameters(), strict=True))


def test_a_run_writes_each_row_of_its_history(run):
    folder, summary = run
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 7)) and rows[-1] == summary["metrics"]
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)


def test_a_run_writes_its_recipe_in_full_and_the_versions(run):
    folder, _ = run
    again = read_recipe(folder / "recipe.yaml")
    assert again.to_dict() == small(out=folder).to_dict()
    found = json.loads((folder / "versions.json").read_text())
    assert found["packages"]["torch"] == torch.__version__ and again.training.seed == 0


def test_an_evaluation_compares_the_same_prompts_before_and_after(run):
    folder, summary = run
    kept = json.loads((folder / "evaluation.json").read_text())
    before, after = kept["answers before"], kept["answers after"]
    assert len(kept["prompts"]) == len(before["answers"]) == len(after["rewards"]) == 8
    gain = sum(after["rewards"]) / 8 - sum(before["rewards"]) / 8
    assert summary["evaluation"]["rewards"]["difference"]["mean"] == pytest.approx(gain)


def test_samples_are_kept_to_be_read(run):
    folder, _ = run
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows} == {6} and len(rows) == 2 and all(row["reply"] for row in rows)


def test_a_card_says_how_the_model_was_made_and_what_was_measured(run):
    folder, summary = run
    top, text = (folder / "model" / "README.md").read_text().removeprefix("---\n").split("---\n", 1)
    assert yaml.safe_load(top) == {"library_name": "transformers", "tags": ["course-lib", "dpo"]}
    assert f"{summary['evaluation']['rewards']['after']:.3g}" in text and "learning_rate: 0.0003" in text
    assert "What is not known" in text


def test_a_card_names_what_others_can_find():
    recipe = read_recipe("laptop/rloo")
    text = card(recipe, {"steps": 10, "metrics": {}}, [])
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in text and "steps on `questions.jsonl`" in text


def test_a_folder_with_a_run_is_not_written_over(run):
    folder, _ = run
    with pytest.raises(recipes.RecipeError, match="is not empty: --resume"):
        run_recipe(small(out=folder))


def test_a_run_is_resumed_only_as_itself(run):
    folder, _ = run
    with pytest.raises(recipes.RecipeError, match="training.beta was 0.1 and is 0.2"):
        run_recipe(small("tiny/dpo", "beta=0.2", out=folder), resume=True)


def test_a_run_is_resumed_only_with_the_evaluation_that_it_began_with(run):
    folder, _ = run
    with pytest.raises(recipes.RecipeError, match="evaluation.prompts was 8 and is 4"):
        run_recipe(small("tiny/dpo", "evaluation.prompts=4", out=folder), resume=True)


def test_what_was_taken_out_of_a_recipe_makes_it_another_run(tmp_path):
    kept = folder.RunFolder(tmp_path)
    kept.begin(small("tiny/ppo", "reward.truth.function=gold", out=tmp_path))
    with pytest.raises(recipes.RecipeError, match="reward.truth.function was 'gold' and is None"):
        kept.refuse_another_run(small("tiny/ppo", out=tmp_path), resume=True)


def test_a_run_that_fails_after_its_first_step_keeps_what_explains_it(tmp_path):
    with pytest.raises(TrainingError):
        run_recipe(small("tiny/dpo", "learning_rate=1e30", out=tmp_path / "run"))
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") >= 1


def test_a_folder_that_was_there_before_a_failed_run_stays(tmp_path):
    (tmp_path / "judge.py").write_text("def judge(prompts, completions):\n    raise RuntimeError('no opinion')\n")
    (tmp_path / "run").mkdir()
    with pytest.raises(RuntimeError, match="no opinion"):
        run_recipe(small("tiny/dpo", f"judge={tmp_path}/judge.py:judge", out=tmp_path / "run"))
    assert (tmp_path / "run").is_dir() and not list((tmp_path / "run").iterdir())


class Die(Part):
    def before_update(self, run):
        if run.step == 4:
            raise KeyboardInterrupt


def test_a_run_that_was_killed_goes_on_to_the_same_model(tmp_path, run, monkeypatch):
    changes = ("checkpoint_every=2",)
    parts = _Execution._parts
    with monkeypatch.context() as patch:
        patch.setattr(_Execution, "_parts", lambda self: [*parts(self), Die()])
        with pytest.raises(KeyboardInterrupt):
            run_recipe(small("tiny/dpo", *changes, out=tmp_path / "run"))
    assert not (tmp_path / "run" / "model").exists()
    summary = run_recipe(small("tiny/dpo", *changes, out=tmp_path / "run"), resume=True)
    whole, again = (AutoModelForCausalLM.from_pretrained(f / "model") for f in (run[0], tmp_path / "run"))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    assert summary["evaluation"] == run[1]["evaluation"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 7))


@pytest.mark.slow
def test_a_run_that_was_killed_on_one_process_goes_on_on_two(tmp_path, run, monkeypatch):
    import subprocess
    import sys

    parts, words = _Execution._parts, [*SMALL, "checkpoint_every=2", f"output={tmp_path}/run"]
    with monkeypatch.context() as patch:
        patch.setattr(_Execution, "_parts", lambda self: [*parts(self), Die()])
        with pytest.raises(KeyboardInterrupt):
            run_recipe(read_recipe("tiny/dpo", words))
    command = [sys.executable, "-m", "course_lib", "train", "tiny/dpo", *words, "gpus=2", "strategy=ddp", "--resume"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    whole, again = (
        [json.loads(line)["loss"] for line in (f / "metrics.jsonl").read_text().splitlines()]
        for f in (run[0], tmp_path / "run")
    )  # fmt: skip
    assert again == pytest.approx(whole, abs=1e-4) and (tmp_path / "run" / "model" / "README.md").is_file()


def test_trackers_get_the_same_rows(tmp_path, monkeypatch):
    from accelerate.tracking import GeneralTracker
    from accelerate.utils import LoggerType

    seen = []

    class Tracker(GeneralTracker):
        name, requires_logging_directory, tracker = "tensorboard", False, None

        def store_init_configuration(self, values):
            seen.append(values)

        def log(self, values, step=None, **_):
            seen.append((step, values["loss"]))

    monkeypatch.setattr("course_lib.recipes.writing.get_available_trackers", lambda: [LoggerType.TENSORBOARD])
    monkeypatch.setattr("course_lib.recipes.writing.filter_trackers", lambda names, folder: [Tracker()])
    run_recipe(small("tiny/dpo", "trackers=[tensorboard]", out=tmp_path / "run"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert seen[0]["method"] == "dpo" and seen[1:] == [(row["step"], row["loss"]) for row in rows]


def test_rewards_of_a_recipe_are_added_by_their_weights(tmp_path):
    from course_lib.recipes.building import reward_of
    from course_lib.world import gold_reward, prompts

    (tmp_path / "mine.py").write_text("import torch\ndef ones(prompts, _):\n    return torch.ones(len(prompts))\n")
    changes = ["reward.reward-model.model=null", "reward.reward-model.function=gold", "reward.more.weight=3",
               f"reward.more.function={tmp_path}/mine.py:ones"]  # fmt: skip
    score = reward_of(read_recipe("tiny/ppo", changes).reward)
    asked = prompts("test", 4)
    replies = ["a banana is yellow."] * 4
    assert torch.allclose(score(asked, replies), gold_reward(asked, replies) + 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_every_method_runs_from_its_recipe_in_as_many_steps_as_planned(name, tmp_path):
    recipe = small(name, out=tmp_path / "run")
    planned, summary = recipes.plan(recipe), run_recipe(recipe)
    assert summary["steps"] == planned.steps and (tmp_path / "run" / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_dpo_beats_sft_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "tiny/dpo", "data.limit=1000", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["evaluation"]["rewards"]["difference"]["low"] > 0.3
