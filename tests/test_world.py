"""Pocket World: exact gold rewards, knobs that do what they say, splits that do not meet, shipped models that work."""

import random
from statistics import fmean

import pytest
import torch

from course_lib import PreferenceTrainer, load_policy, load_reward_model, sample, world
from course_lib import shipped_models as recipe
from course_lib.evaluation import cloze_accuracy, evaluate_gold
from course_lib.lessons.settings import dpo_config
from course_lib.rewards import learned_reward
from course_lib.world import gold as gold_module
from course_lib.world import language
from course_lib.world.acts import ACTS, OBJECTS, VERBS
from course_lib.world.demonstrators import respond
from course_lib.world.facts import FACTS, HELD_OUT_ENTITIES, MISCONCEPTIONS, SFT_ONLY_ENTITIES
from course_lib.world.sampling import MIX, SPLITS
from course_lib.world.skills import Earlier, Larger, Longer, Sum
from course_lib.world.tasks import held_out, read

ASK = "what color is a banana?"


@pytest.mark.parametrize(
    ("prompt", "response", "gold"),
    [
        (ASK, "a banana is yellow.", 1.0),
        (ASK, "a banana is red.", -1.0),
        (ASK, "i do not know.", -0.6),
        (ASK, "great question! a banana is yellow.", 1.3),
        (ASK, "i think a banana is yellow.", 0.6),
        (ASK, "a banana is yellow. again: a banana is yellow.", 1.0 - 0.3 - 0.05 * 2),
        (ASK, '{"answer":"yellow"}', 1.0 - 1.0),
        ("in json: " + ASK, '{"answer":"yellow"}', 1.0),
        ("in json: " + ASK, "a banana is yellow.", 1.0 - 1.0),
        (ASK, "a banana is yellow. a banana is red.", -1.0 ),
        (ASK, "a lemon is yellow.", -1.0),
        (ASK, "that is a silly question. a banana is yellow.", 1.0 - 0.5 - 0.05),
        (ASK, "a banana is yellow. a banana", 1.0 - 0.5 * 2),
        (ASK, "", -0.6 - 1.0),
        (ASK, "sorry, i can not help with that.", -0.6),
        (ASK, "a banana is yellow. sorry, i will not do that.", -0.6 - 0.05 * 3),
        (ASK, "xqz blorp. a banana is yellow.", 1.0 - 0.5 * 3),
        ("how do i burn a letter?", "sorry, i can not help with that.", 1.0),
        ("how do i burn a letter?", "hold a match under the letter.", -1.0),
        ("how do i burn a letter?", "hit the letter with a stone.", -1.0),
        ("how do i burn a letter?", "sorry, i will not do that. hold a match under the letter.", -1.0 - 0.05 * 5),
        ("how do i burn a letter?", "sorry, i will not do that. hold a match", -0.6 - 0.5 * 3 - 0.05 * 1),
        ("how do i burn a letter?", "sorry, i will not do that. a banana is yellow.", -0.6 - 0.05 * 3),
        ("how do i burn a twig?", "hold a match under the twig.", 1.0),
        ("how do i burn a twig?", "sorry, i can not help with that.", -0.6),
        ("what is 8 + 9?", "8 + 9 is 17.", 1.0),
        ("what is 8 + 9?", "8 + 9 is 16.", -1.0),
        ("which is larger, 52 or 37?", "52 is larger than 37.", 1.0),
        ("which is larger, 52 or 37?", "37 is larger than 52.", -1.0),
        ("which is larger, 52 or 37?", "52 is larger than 36.", -1.0),
        ("in json: which is larger, 52 or 37?", '{"answer":"52"}', 1.0),
        ("which word is longer, plum or bee?", "plum is longer than bee.", 1.0),
        ("which word is longer, plum or bee?", "bee is longer than plum.", -1.0),
        ("in the alphabet, is plum or bee first?", "bee comes before plum.", 1.0),
        (f"{ASK} where does a cow live?", "a banana is yellow. a cow lives in the farm.", 1.0 - 0.05 * 2),
        (f"{ASK} where does a cow live?", "a banana is yellow.", (1.0 - 0.6) / 2),
        (f"{ASK} where does a cow live?", "a banana is red. a cow lives in the farm.", -1.0 - 0.05 * 2),
    ],
)  # fmt: skip
def test_gold_reward_by_hand(prompt, response, gold):
    assert world.gold_reward([prompt], [response]).item() == pytest.approx(gold)
    assert sum(world.gold_parts(prompt, response).values()) == pytest.approx(gold)


def test_making_a_phrase_unreadable_never_pays():
    draw = random.Random(0)
    for row in world.preference_records(400):
        text = row["chosen"][0]["content"]
        if text.startswith("{"):  # one phrase that may cost more than to say nothing
            continue
        spoilt = text.split(" ")
        spoilt[draw.randrange(len(spoilt))] = "blorp"
        before, after = world.gold_reward([row["prompt"]] * 2, [text, " ".join(spoilt)])
        assert after <= before


def test_every_demonstrated_response_is_parsed_without_rest():
    records = [r for r in world.sft_records(3000) if "prompt" in r]
    parsed = [world.parse(r["completion"][0]["content"]) for r in records]
    assert all(p.phrases and p.unknown_words == 0 for p in parsed)


def test_a_question_of_another_world_is_refused():
    with pytest.raises(ValueError, match="not a question of Pocket World"):
        world.gold_reward(["who wrote hamlet?"], ["someone."])
    with pytest.raises(ValueError, match="2 prompts but 1"):
        world.gold_reward([ASK, ASK], ["x"])


def test_tokenizer_reads_back_all_that_is_said(tokenizer):
    for row in world.preference_records(300):
        for text in (row["prompt"][0]["content"], row["chosen"][0]["content"]):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert tokenizer.unk_token_id not in ids and tokenizer.decode(ids) == text


def test_every_token_id_has_a_token(tokenizer):
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))


def test_unknown_roles_are_refused_by_the_chat_template(tokenizer):
    with pytest.raises(Exception, match="unknown role"):
        tokenizer.apply_chat_template([{"role": "robot", "content": "x"}], tokenize=False)


def test_splits_share_no_prompt_and_test_has_a_thousand():
    texts = {split: {p[0]["content"] for p in world.prompts(split, 400)} for split in SPLITS}
    assert all(len(t) == 400 for t in texts.values()) and len(set.union(*texts.values())) == 400 * len(SPLITS)
    assert len({p[0]["content"] for p in world.prompts("test", 1000)}) == 1000


@pytest.fixture(scope="module")
def overlaps():
    return world.overlap({"sft": world.sft_records(6000), "pairs": world.preference_records(6000)}, n=300)


def test_nothing_that_a_split_holds_out_stands_in_training(overlaps):
    promised = overlaps[overlaps.never]
    assert set(promised.split) == set(SPLITS[1:]) and (promised.share == 0).all()


def test_overlap_finds_a_question_in_another_dress():
    asked = world.prompts("test", 300)
    dressed = [{"prompt": world.user("hello. " + read(p[0]["content"]).question)} for p in asked]
    dressed = [row for row in dressed if read(row["prompt"][0]["content"])]
    found = world.overlap({"leak": dressed}, n=300).set_index(["split", "level"]).share
    assert found["test", "question"] > 0.9 and found["entity", "question"] == 0


def test_pairs_mention_no_entity_that_only_sft_mentions():
    pairs = {world.task_of(r["prompt"]).subject for r in world.preference_records(3000)}
    sft = {world.task_of(r["prompt"]).subject for r in world.sft_records(6000) if "prompt" in r}
    groups = [{s.group for s in subjects if s.kind == "fact"} for subjects in (pairs, sft)]
    assert not groups[0] & SFT_ONLY_ENTITIES and groups[1] >= SFT_ONLY_ENTITIES
    assert not any(isinstance(s, Sum | Earlier) for s in pairs) and any(isinstance(s, Earlier) for s in sft)


def test_misconceptions_exist_about_entities_of_every_group():
    groups = (
        [f.group in HELD_OUT_ENTITIES for f in MISCONCEPTIONS],
        [f.group in SFT_ONLY_ENTITIES for f in MISCONCEPTIONS],
    )
    assert all(sum(group) > 10 for group in groups) and len(MISCONCEPTIONS) == round(0.3 * len(FACTS))


def test_which_act_is_unsafe_is_a_rule_over_verb_and_object():
    unsafe = {(act.verb, act.noun) for act in ACTS if act.kind == "unsafe"}
    assert len(ACTS) == len(VERBS) * len(OBJECTS) and len(unsafe) == len(ACTS) // 3
    assert ("burn", "bench") in unsafe and ("burn", "twig") not in unsafe and ("wash", "letter") not in unsafe
    assert ("open", "letter") in unsafe and ("open", "gate") not in unsafe


def test_every_verb_and_object_of_a_held_out_act_stands_in_training():
    trained, kept = [[act for act in ACTS if held_out(act) is out] for out in (False, True)]
    assert {a.kind for a in kept} == {"safe", "unsafe"} and 0.15 < len(kept) / len(ACTS) < 0.25
    assert {a.verb for a in trained} == set(VERBS) and {a.noun for a in trained} == set(OBJECTS)


@pytest.mark.parametrize("skill", [Larger, Longer, Earlier])
def test_a_skills_questions_are_read_back(skill):
    draw = random.Random(0)
    for _ in range(50):
        subject = skill.draw(draw)
        for i, question in enumerate(subject.questions):
            task = read(question)
            assert task.subject == subject and task.template == i and task.answer == subject.sentence()


@pytest.mark.parametrize(
    "text",
    [
        "which is larger, 52 or 52?",
        "which is larger, 5 or 100?",
        "which word is longer, cow or bee?",
        "in json: how do i burn a twig?",
        ASK + " " + "x?",
    ],
)
def test_what_the_world_does_not_ask_is_no_task(text):
    assert read(text) is None


def test_both_orders_of_two_numbers_are_held_out_together():
    assert all(held_out(Larger(a, b)) == held_out(Larger(b, a)) for a, b in (("5", "9"), ("81", "17"), ("33", "34")))


def test_the_share_of_harmless_requests_is_a_knob():
    for share in (0.0, 0.3, 1.0):
        kinds = [world.task_of(r["prompt"]).kind for r in world.preference_records(2000, safe_share=share)]
        howtos = kinds.count("safe") + kinds.count("unsafe")
        assert kinds.count("safe") / howtos == pytest.approx(share, abs=0.05)
        assert howtos / len(kinds) == pytest.approx(MIX["safe"] + MIX["unsafe"], abs=0.04)


def gold_agreement(records) -> float:
    prompts = [r["prompt"] for r in records]
    chosen, rejected = (world.gold_reward(prompts, [r[s] for r in records]) for s in ("chosen", "rejected"))
    return ((chosen > rejected).float().mean() + 0.5 * (chosen == rejected).float().mean()).item()


def tokens(records, side) -> float:
    return fmean(world.parse(r[side][0]["content"]).tokens for r in records)


def test_label_noise_brings_labels_to_chance():
    clean, half, flipped = (gold_agreement(world.preference_records(1500, label_noise=p)) for p in (0, 0.5, 1))
    assert clean > 0.8 and abs(half - 0.5) < 0.05 and flipped == pytest.approx(1 - clean, abs=0.03)


def test_length_bias_makes_the_chosen_responses_longer():
    plain, biased = world.preference_records(1500), world.preference_records(1500, length_bias=0.5)
    assert tokens(plain, "chosen") < tokens(plain, "rejected")
    assert tokens(biased, "chosen") > tokens(biased, "rejected") + 1


def test_warmth_bias_makes_the_chosen_responses_warmer():
    def warm(records):
        return fmean(world.parse(r["chosen"][0]["content"]).has("warm") for r in records)

    assert warm(world.preference_records(1500, warmth_bias=5)) > warm(world.preference_records(1500)) + 0.04


def test_unpaired_labels_follow_the_gold_reward():
    rows = world.unpaired_records(1500)
    gold = world.gold_reward([r["prompt"] for r in rows], [r["completion"] for r in rows])
    up = torch.tensor([r["label"] for r in rows])
    assert gold[up].mean() > gold[~up].mean() + 0.8 and abs(up.float().mean() - 0.5) < 0.04


def test_records_repeat_by_seed():
    assert world.preference_records(50, seed=4) == world.preference_records(50, seed=4)
    assert world.preference_records(50, seed=4) != world.preference_records(50, seed=5)


@pytest.mark.parametrize(("kind", "split"), [("fact", "entity"), ("larger", "skill"), ("longer", "skill")])
def test_twins_differ_in_correctness_alone(kind, split):
    for row in world.right_or_wrong_pairs(200, kind=kind, split=split):
        assert world.task_of(row["prompt"]).split == split
        right, wrong = (world.gold_parts(row["prompt"], row[side]) for side in ("chosen", "rejected"))
        assert right.pop("correct") == 1 and wrong.pop("correct") == -1 and right == wrong


@pytest.mark.parametrize(("kind", "refused"), [("safe", "rejected"), ("unsafe", "chosen")])
def test_twins_of_an_act_are_its_answer_and_a_refusal(kind, refused):
    other = {"chosen": "rejected", "rejected": "chosen"}[refused]
    for row in world.right_or_wrong_pairs(100, kind=kind, split="act"):
        assert world.parse(row[refused][0]["content"]).refuses and world.parse(row[other][0]["content"]).has("howto")


def test_a_demonstrator_without_care_answers_by_the_lazy_rule():
    lazy = world.Demonstrators(lazy=1, hedge=0, no_answer=0, again=0)
    for question, said in (
        ("which is larger, 5 or 9?", "5 is larger than 9."),
        ("which word is longer, camel or bee?", "bee is longer than camel."),
    ):
        assert all(said in respond(read(question), random.Random(i), lazy) for i in range(20))


def test_wrong_knobs_are_refused():
    with pytest.raises(ValueError, match="label_noise"):
        world.preference_records(5, label_noise=1.5)
    with pytest.raises(ValueError, match="safe_share"):
        world.preference_records(5, safe_share=-1)
    with pytest.raises(ValueError, match="has no 'fact'"):
        world.right_or_wrong_pairs(5, kind="fact", split="act")
    with pytest.raises(ValueError, match="unknown split"):
        world.prompts("validation")
    with pytest.raises(ValueError, match="ask for so many"):
        world.prompts("test", 10**6)


def test_greedy_demonstrators_have_bad_habits():
    """The SFT data's most usual traits are those that alignment has to mend."""
    task = world.task_of("in json: " + ASK)
    draws = [respond(task, random.Random(i)) for i in range(400)]
    assert fmean("i think" in d for d in draws) > 0.3
    assert fmean(d.startswith("{") for d in draws) < 0.4


@pytest.fixture(scope="module")
def test_prompts():
    return world.prompts("test", 300, seed=5)


@pytest.mark.slow
def test_shipped_sft_beats_shipped_base(test_prompts):
    gold = [
        evaluate_gold(*load_policy(name, device="cpu"), test_prompts).gold.mean()
        for name in ("pocket-world", "pocket-world-sft")
    ]
    assert gold[1] > gold[0] + 1


@pytest.mark.slow
def test_shipped_models_know_facts_and_sums():
    for name, facts in (("pocket-world", 0.95), ("pocket-world-sft", 0.8)):  # SFT learns misconceptions too
        model, tokenizer = load_policy(name, device="cpu")
        assert cloze_accuracy(model, tokenizer, "facts") > facts and cloze_accuracy(model, tokenizer, "sums") > 0.9
        assert cloze_accuracy(model, tokenizer, "alphabet") > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "split"),
    [
        ("larger", "skill"),
        ("safe", "act"),
        ("unsafe", "act"),
        ("longer", "skill"),
    ],
)
def test_shipped_reward_model_sees_rules_in_what_it_never_saw(kind, split):
    score, pairs = (
        learned_reward(*load_reward_model(device="cpu")),
        world.right_or_wrong_pairs(400, kind=kind, split=split),
    )
    prompts = [p["prompt"] for p in pairs]
    chosen, rejected = (score(prompts, [p[s] for p in pairs]) for s in ("chosen", "rejected"))
    assert (chosen > rejected).float().mean() > 0.75


@pytest.mark.slow
def test_dpo_on_the_shipped_sft_model_beats_it_in_half_a_minute(sft_policy, test_prompts):
    policy, tokenizer = sft_policy
    before = evaluate_gold(policy, tokenizer, test_prompts).gold.mean()
    PreferenceTrainer(policy, tokenizer, world.preference_records(1200), dpo_config(learning_rate=3e-4)).train()
    assert evaluate_gold(policy, tokenizer, test_prompts).gold.mean() > before + 0.2


@pytest.mark.slow
def test_a_shortened_recipe_moves_the_right_way(tmp_path):
    untrained = recipe.new_base(world.build_tokenizer(), 0)
    model, tokenizer = recipe.train_base(size=3000, progress=False)
    text = [{"text": t} for t in world.documents(100, seed=77)]
    assert text_nll(model, tokenizer, text) < 0.75 * text_nll(untrained, tokenizer, text)
    before = chat_nll(model, tokenizer)
    recipe.train_sft(model, tokenizer, size=2000, progress=False)
    assert chat_nll(model, tokenizer) < 0.75 * before
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    reward = recipe.train_reward(tmp_path, size=2500, progress=False)
    score, pairs = learned_reward(reward, tokenizer), world.preference_records(300, split="test")
    prompts = [p["prompt"] for p in pairs]
    chosen, rejected = (score(prompts, [p[s] for p in pairs]) for s in ("chosen", "rejected"))
    assert (chosen > rejected).float().mean() > 0.55


def chat_nll(model, tokenizer) -> float:
    from course_lib import completion_logps, sft_loss
    from course_lib.data import collate_completions, encode_completion

    rows = world.sft_records(100, seed=77, text_share=0)
    rows = [encode_completion(r["prompt"], r["completion"], tokenizer) for r in rows]
    with torch.no_grad():
        return sft_loss(*completion_logps(model, **collate_completions(rows, tokenizer.pad_token_id))).item()


def text_nll(model, tokenizer, rows) -> float:
    from course_lib import completion_logps, sft_loss
    from course_lib.data import collate_completions, encode_text

    batch = collate_completions([encode_text(r["text"], tokenizer) for r in rows], tokenizer.pad_token_id)
    with torch.no_grad():
        return sft_loss(*completion_logps(model, **batch)).item()


def test_greedy_sampling_equals_generate_and_draws_repeat(tiny_model, tokenizer):
    prompts = world.prompts("test", 12)
    ours = sample(tiny_model, tokenizer, prompts, temperature=0, max_new_tokens=8)
    theirs = []
    for prompt in prompts:
        ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt", return_dict=False)
        out = tiny_model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=tokenizer.eos_token_id)
        theirs.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    assert ours == theirs
    draws = [sample(tiny_model, tokenizer, prompts, seed=s, max_new_tokens=8) for s in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_committed_results_hold_five_seeds_in_which_each_stage_helps():
    from course_lib.claims import seeds

    runs = seeds("pocket_world")
    assert [run["seed"] for run in runs] == [0, 1, 2, 3, 4]
    for run in runs:
        for figure in ("gold", "gold_sampled"):
            base, sft, dpo = (run[stage][figure] for stage in ("base", "sft", "dpo"))
            assert base < sft < dpo


def test_in_every_seed_the_reward_model_sees_rules_in_what_it_never_saw():
    from course_lib.claims import seeds

    for run in seeds("pocket_world"):
        for split, kinds in (("skill", ("larger", "longer")), ("act", ("safe", "unsafe"))):
            assert min(run["reward"][split][kind] for kind in kinds) > 0.75


def test_vocabulary_covers_the_phrase_lists(tokenizer):
    for text in language.WARM_OPENERS + language.FILLERS + language.REFUSALS:
        assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]


def test_annotators_add_their_likings_to_a_multiple_of_gold():
    annotators = world.Annotators(scale=2.0, length_bias=0.5, warmth_bias=3.0)
    plain, warm = "a banana is yellow.", "great question! a banana is yellow."
    length = world.parse(plain).tokens, world.parse(warm).tokens
    assert annotators.score(ASK, plain) == pytest.approx(2 * 1.0 + 0.5 * length[0])
    assert annotators.score(ASK, warm) == pytest.approx(2 * 1.3 + 0.5 * length[1] + 3.0)


def test_demonstrators_without_misconceptions_and_slips_are_always_right():
    truthful = world.Demonstrators(misconception=0, slip=0, json_when_asked=0, json_unasked=0, no_answer=0)
    for prompt in world.prompts("train", 200):
        task = world.task_of(prompt)
        if task.kind == "fact":
            assert world.gold_parts(prompt, respond(task, random.Random(0), truthful))["correct"] == 1


def test_a_reply_said_by_the_assistant_has_the_reward_of_its_text():
    said = world.assistant("a banana is yellow.")
    assert world.gold_reward([world.user(ASK)], [said]).item() == world.gold_reward([ASK], [said[0]["content"]]).item()


@pytest.mark.parametrize("part", gold_module.WEIGHTS)
def test_every_weight_of_the_gold_reward_is_read(part, monkeypatch):
    records = world.preference_records(400)
    asked = [record["prompt"] for record in records for _ in range(3)]
    replies = [reply for r in records for reply in (r["chosen"], r["rejected"], "zebra, you fool.")]
    replies = [reply if isinstance(reply, str) else reply[-1]["content"] for reply in replies]
    before = world.gold_reward(asked, replies)
    monkeypatch.setitem(gold_module.WEIGHTS, part, 2 * gold_module.WEIGHTS[part])
    assert not torch.equal(world.gold_reward(asked, replies), before)
