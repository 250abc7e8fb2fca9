"""A shop to search and buy in, after WebShop (Yao et al., NeurIPS 2022; arXiv:2207.01206): pages, actions and reward.

Actions are `search[words]` and `click[button]`. From the front page one searches; a page of results leads to items, on
to further pages and back; an item shows its options, its description and features on pages of their own, and can be
bought, which ends the episode with a reward in [0, 1]:

    r = r_type (|U_att ∩ Y_att| + |U_opt ∩ Y_opt| + 1[y_price <= u_price]) / (|U_att| + |U_opt| + 1)     (Sec. 3.2)

Products are made up from word lists, so that no web is needed; `shopper.py` has the agent.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from common.data.text_world.search import lexical_search
from common.data.text_world.text import Passage, Sentence

PAGE = 5  # results of a page
MOST = 25  # results of a search
BACK, NEXT, PREVIOUS, BUY = "back to search", "next >", "< prev", "buy now"
DETAILS = ("description", "features")

CATEGORIES = {
    "home › kitchen › mug": ("dishwasher safe", "lead free", "insulated", "stackable"),
    "home › bedroom › lamp": ("dimmable", "cordless", "energy saving", "height adjustable"),
    "fashion › women › jacket": ("waterproof", "machine washable", "hooded", "slim fit"),
    "fashion › men › jacket": ("waterproof", "machine washable", "hooded", "quick dry"),
    "beauty › hair › brush": ("cruelty free", "anti static", "for curly hair", "travel size"),
    "grocery › snacks › nuts": ("gluten free", "low sodium", "organic", "individually wrapped"),
}
OPTIONS = {
    "colour": ("red", "blue", "green", "black", "white", "brown", "yellow", "purple"),
    "material": ("cotton", "leather", "steel", "wood", "bamboo", "glass", "wool", "linen"),
    "pattern": ("plain", "striped", "dotted", "checked", "floral", "marbled", "woven", "printed"),
    "size": ("tiny", "small", "medium", "large", "huge", "narrow", "wide", "tall"),
}
NAMED = 2, 3  # options of a category in a shop, least and most
OFFERED = 3  # values of an option, in a shop
BRANDS = ("Norlan", "Tirvia", "Kelby", "Sandor", "Maron", "Pellis")


@dataclass(frozen=True)
class Product:
    """An article of the shop.

    Attributes:
        category: its path, parts joined by `›`.
        attributes: hidden; what its description and features say of it.
        options: name -> values to choose from.
        price: dollars.
        query: the search that the catalogue has it under.
    """

    id: str
    title: str
    category: str
    attributes: tuple[str, ...]
    options: Mapping[str, tuple[str, ...]]
    price: float
    query: str

    @property
    def description(self) -> str:
        return f"{self.title} is {self.attributes[0]}." if self.attributes else self.title

    @property
    def features(self) -> str:
        return "; ".join(self.attributes[1:]) or "none"


@dataclass(frozen=True)
class Goal:
    """What is to be bought: a product like `product`, with these attributes and options, for at most `price`."""

    product: Product
    attributes: tuple[str, ...]
    options: Mapping[str, str]
    price: float

    @property
    def text(self) -> str:
        """The instruction."""
        wanted = "".join(f", {name} {value}" for name, value in self.options.items())
        kind = self.product.query
        return (
            f"Find me a {kind} that is {' and '.join(self.attributes)}{wanted}, for at most {self.price:.2f} dollars."
        )


def type_reward(bought: Product, wanted: Product) -> float:
    """r_type: 1, 0.5, 0.1 or 0 by search, category and title, after the code of WebShop (`get_type_reward`).

    1 where the searches agree, two parts of the category do, or more than a fifth of the wanted title's words are
    there, else 0.5; whatever else agrees, 0.1 below a tenth of the title, and 0 without a word of it.
    """
    words = set(_words(wanted.title))
    title = len(words & set(_words(bought.title))) / len(words)
    parts = set(map(str.strip, bought.category.split("›"))) & set(map(str.strip, wanted.category.split("›")))
    if title == 0:
        return 0.0
    if title < 0.1:
        return 0.1
    return 1.0 if bought.query == wanted.query or len(parts) >= 2 or title > 0.2 else 0.5


def purchase_reward(bought: Product, chosen: Mapping[str, str], goal: Goal) -> float:
    """r of a purchase, in [0, 1]; 1 only where all that was asked for is met."""
    attributes = len(set(goal.attributes) & set(bought.attributes))
    options = sum(chosen.get(name) == value for name, value in goal.options.items())
    met = attributes + options + (bought.price <= goal.price)
    return type_reward(bought, goal.product) * met / (len(goal.attributes) + len(goal.options) + 1)


def catalogue(seed: int | str, count: int = 60) -> list[Product]:
    """The products of a seed, each category in turn; what options a category has, and their values, is of the seed."""
    rng = random.Random(f"shop/{seed}")
    offered = {}
    for category in CATEGORIES:
        names = sorted(rng.sample(sorted(OPTIONS), rng.randint(*NAMED)))
        offered[category] = {name: tuple(rng.sample(OPTIONS[name], OFFERED)) for name in names}
    products = []
    for number in range(count):
        category = list(CATEGORIES)[number % len(CATEGORIES)]
        query = category.rpartition("› ")[2]
        attributes = tuple(rng.sample(CATEGORIES[category], rng.randint(1, 3)))
        title = f"{rng.choice(BRANDS)} {query} {attributes[0]}"
        price = round(rng.uniform(5, 80), 2)
        products.append(Product(f"B{number:03}", title, category, attributes, offered[category], price, query))
    return products


def draw_goal(rng: random.Random, products: Sequence[Product]) -> Goal:
    """A goal that one of the products meets in full."""
    product = rng.choice(products)
    attributes = rng.sample(product.attributes, rng.randint(1, len(product.attributes)))
    options = {name: rng.choice(values) for name, values in product.options.items()}
    return Goal(product, tuple(attributes), options, round(product.price + rng.uniform(1, 20), 2))


class Shop:
    """A catalogue with its search, by the words of titles, attributes and categories."""

    def __init__(self, products: Sequence[Product]) -> None:
        self.products = {product.id: product for product in products}
        texts = [" ".join((p.title, p.category, *p.attributes)) for p in products]
        passages = [Passage(p.id, "", (Sentence(text),)) for p, text in zip(products, texts, strict=True)]
        self._search = lexical_search(passages, MOST)

    def search(self, query: str) -> list[Product]:
        """Products for a query, best first."""
        return [self.products[passage.id] for passage in self._search(query)]


@dataclass
class Shopping:
    """An episode under way.

    Attributes:
        reward: 0 until something is bought.
        done: something was bought.
    """

    shop: Shop
    goal: Goal
    reward: float = 0.0
    done: bool = False
    results: list[Product] = field(default_factory=list)
    page: int = 0
    item: Product | None = None
    detail: str = ""
    chosen: dict[str, str] = field(default_factory=dict)

    def actions(self) -> list[str]:
        """What can be done on this page, in lower case; `search` stands for a search by any words."""
        if self.done:
            return []
        if self.detail:
            return [BACK, PREVIOUS]
        if self.item:
            return [BACK, PREVIOUS, *DETAILS, BUY, *(v for values in self.item.options.values() for v in values)]
        if not self.results:
            return ["search"]
        turn = [PREVIOUS] * (self.page > 0) + [NEXT] * ((self.page + 1) * PAGE < len(self.results))
        return [BACK, *turn, *(product.id.lower() for product in self.listed())]

    def observe(self) -> str:
        """The page as text: what it shows, then what can be done."""
        if self.done:
            lines = [f"Thank you. Your score: {self.reward:.2f}"]
        elif self.item and self.detail:
            lines = [getattr(self.item, self.detail)]
        elif self.item:
            lines = [self.item.title, f"Price: {self.item.price:.2f}"]
            lines += [f"{name}: {self.chosen.get(name, 'not chosen')}" for name in self.item.options]
        elif self.results:
            lines = [f"Page {self.page + 1} of {-(-len(self.results) // PAGE)}"]
            lines += [f"{product.id}: {product.title}, {product.price:.2f}" for product in self.listed()]
        else:
            lines = ["Search for a product."]
        buttons = ", ".join("search[words]" if action == "search" else f"click[{action}]" for action in self.actions())
        return "\n".join([*lines, f"Actions: {buttons or 'none'}"])

    def act(self, action: str) -> bool:
        """Do `search[words]` or `click[button]`; False, and nothing done, where the page has no such action.

        Raises:
            RuntimeError: the episode is over.
        """
        if self.done:
            raise RuntimeError("the episode is over")
        parsed = re.fullmatch(r"\s*(search|click)\[(.*)\]\s*", action, re.IGNORECASE | re.DOTALL)
        if parsed is None:
            return False
        verb, argument = parsed[1].lower(), parsed[2].strip()
        if verb == "search":
            if "search" not in self.actions() or not argument:
                return False
            self.results, self.page = self.shop.search(argument), 0
            return True
        if argument.lower() == "search" or argument.lower() not in self.actions():
            return False
        self._click(argument.lower())
        return True

    def _click(self, button: str) -> None:
        if button == BACK:
            self.results, self.page, self.item, self.detail, self.chosen = [], 0, None, "", {}
        elif button == PREVIOUS and self.detail:
            self.detail = ""
        elif button == PREVIOUS and self.item:
            self.item, self.chosen = None, {}
        elif button in (PREVIOUS, NEXT):
            self.page += 1 if button == NEXT else -1
        elif self.item is None:
            self.item = self.shop.products[button.upper()]
        elif button in DETAILS:
            self.detail = button
        elif button == BUY:
            self.done, self.reward = True, purchase_reward(self.item, self.chosen, self.goal)
        else:
            self.chosen |= {name: button for name, values in self.item.options.items() if button in values}

    def listed(self) -> list[Product]:
        """The products on this page of results."""
        return self.results[self.page * PAGE : (self.page + 1) * PAGE]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
