"""The shop: pages by their buttons, the reward by hand, and that a goal can be met."""

import random
from dataclasses import replace

import pytest

from projects.mem1.shopping import (
    BUY,
    CATEGORIES,
    OFFERED,
    OPTIONS,
    Goal,
    Product,
    Shop,
    Shopping,
    catalogue,
    draw_goal,
    purchase_reward,
    type_reward,
)

MUG = Product(
    "B000", "Norlan mug insulated", "home › kitchen › mug", ("insulated", "stackable"),
    {"colour": ("red", "blue")}, 12.0, "mug",
)  # fmt: skip
GOAL = Goal(MUG, ("insulated", "stackable"), {"colour": "red"}, 15.0)


def test_reward_by_hand():
    assert purchase_reward(MUG, {"colour": "red"}, GOAL) == 1
    assert purchase_reward(MUG, {"colour": "blue"}, GOAL) == 3 / 4
    assert purchase_reward(MUG, {}, replace(GOAL, price=10.0)) == 2 / 4
    plain = replace(MUG, attributes=("insulated",))
    assert purchase_reward(plain, {"colour": "red"}, GOAL) == 3 / 4


def test_type_of_the_product_by_hand():
    other = replace(MUG, query="lamp", category="home › bedroom › lamp")
    assert type_reward(other, MUG) == 1  # the whole title is there
    ten = replace(MUG, title="a b c d e f g h i j")
    assert type_reward(replace(other, title="a b"), ten) == 0.5  # a fifth, and nothing else agrees
    assert type_reward(replace(other, title="a b", category="home › kitchen › pan"), ten) == 1
    assert type_reward(replace(other, title="a b", query="mug"), ten) == 1
    assert type_reward(replace(MUG, title="z"), MUG) == 0
    long = replace(MUG, title=" ".join(f"w{i}" for i in range(11)))
    assert type_reward(replace(MUG, title="w0"), long) == 0.1


def test_a_walk_through_all_pages():
    episode = Shopping(Shop(catalogue(1)), GOAL)
    assert episode.actions() == ["search"] and "search[words]" in episode.observe()
    assert episode.act("search[mug]")
    assert episode.observe().startswith("Page 1 of 2") and len(episode.results) == 10
    assert episode.act("click[next >]") and episode.observe().startswith("Page 2 of 2")
    assert "next >" not in episode.actions() and episode.act("click[< prev]")
    first = episode.results[0]
    assert episode.act(f"click[{first.id}]") and first.title in episode.observe()
    assert episode.act("click[Description]") and first.description in episode.observe()
    assert episode.actions() == ["back to search", "< prev"]
    assert episode.act("click[< prev]") and episode.act("click[features]") and episode.act("click[< prev]")
    name, values = next(iter(first.options.items()))
    assert episode.act(f"click[{values[1]}]") and f"{name}: {values[1]}" in episode.observe()
    assert episode.act("click[back to search]") and episode.actions() == ["search"] and not episode.chosen
    assert not episode.done and episode.reward == 0


@pytest.mark.parametrize("action", ["buy now", "click[buy now]", "search[]", "click[search]", "click[B999]", ""])
def test_what_a_page_does_not_offer_does_nothing(action):
    episode = Shopping(Shop(catalogue(1)), GOAL)
    before = episode.observe()
    assert not episode.act(action)
    assert episode.observe() == before


def test_every_goal_can_be_met_and_the_end_is_the_end():
    products = catalogue(2)
    shop = Shop(products)
    for seed in range(20):
        goal = draw_goal(random.Random(seed), products)
        assert goal.product.query in goal.text and f"{goal.price:.2f}" in goal.text
        episode = Shopping(shop, goal)
        assert episode.act(f"search[{goal.product.title}]")
        while goal.product.id.lower() not in episode.actions():
            assert episode.act("click[next >]")
        assert episode.act(f"click[{goal.product.id}]")
        assert all(episode.act(f"click[{value}]") for value in goal.options.values())
        assert episode.act(f"click[{BUY}]")
        assert (episode.done, episode.reward, episode.actions()) == (True, 1.0, [])
        with pytest.raises(RuntimeError, match="is over"):
            episode.act("search[mug]")


def test_a_catalogue_is_a_function_of_its_seed():
    assert catalogue(1) == catalogue(1) != catalogue(2)


def test_a_category_has_options_of_its_own_in_each_shop():
    shops = [{str(p.options): p.category for p in catalogue(seed)} for seed in range(8)]
    assert all(len(of) == len(set(of.values())) == len(CATEGORIES) for of in shops)
    assert len({options for of in shops for options in of}) == 8 * len(CATEGORIES)
    for product in catalogue(1):
        assert len(product.options) in (2, 3)
        for name, values in product.options.items():
            assert len(set(values)) == OFFERED < len(OPTIONS[name]) and set(values) < set(OPTIONS[name])
    values = [value for of in OPTIONS.values() for value in of]
    assert len(set(values)) == len(values)  # a click names a value alone
