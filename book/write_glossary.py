"""Write the glossary page: what the table of names calls things, and the field's terms beside.

    python book/write_glossary.py [OUTPUT]         book/glossary.md, which is committed; a test holds it against this
"""

import sys
from pathlib import Path

from mechproof.proof.names import KINDS, Names

PAGE = Path(__file__).with_name("glossary.md")
TERMS = {
    "accuracy": "The share of all inputs on which the network is right: the correct logit is strictly the largest. A tie is wrong.",
    "advice": "What a search hands to a check: directions, gaps, groupings. Nothing in it is trusted; bad advice loosens a bound and never breaks it.",
    "amplitude": "Of a key: how high its wave stands in the logits, as a function of the difference a - b.",
    "attention": "The weights, positive and of sum 1, by which the last position mixes the values of all positions; the softmax of the scores.",
    "ball": "A number with a radius: the true one lies within. Sums of balls are balls, so that rounding is carried along.",
    "bound": "What a proof gives: a number of inputs, at most as many as the network has right.",
    "bucket": "Tokens that a proof takes together, by how far they lie below the maximum; what it says holds for the worst of them.",
    "certificate": "A file with a claim and the advice from which an independent program derives it anew, given the weights.",
    "certified": "Of an input: the proof says that the network is right on it.",
    "check": "The proof itself: it computes the bound from weights and advice, and what it does is counted.",
    "compact": "Of a proof: short. Of a table: known from a few directions and a bound on the rest.",
    "direct path": "From the query's embedding straight to the logits: W_E W_U, with positions.",
    "directions": "Vectors along which a matrix is multiplied out; what is left when they are taken out is bounded.",
    "door": "A basis of a few directions through which a product of two matrices is taken; what does not pass is bounded.",
    "FLOP": "One operation on numbers: an addition, a multiplication, a comparison. Also the unit of a proof's length.",
    "gap": "How far below the maximum all smaller tokens have to lie for a group of inputs to be provable.",
    "group": "Inputs, or wrong tokens, that a proof takes together.",
    "K": "The number of tokens in an input; n_ctx in code.",
    "key": "In attention: a token that is looked at. In modular addition: a frequency that neurons hear.",
    "length": "Of a proof: the number of operations of its check, from the tensors of the file to the bound.",
    "logit": "The network's score for one output; the largest is the answer.",
    "looseness": "A bound on something over the thing itself; 1 is tight.",
    "margin": "The right logit minus the largest wrong one.",
    "null": "A way to draw random factors that keep something of the trained ones: noise to hold the noise against.",
    "OV circuit": "From an attended token to the logits: W_E W_V W_O W_U; its rows are votes.",
    "peel": "To take directions out of a product's factors, multiply those out, and leave the rest to a rung.",
    "phase": "Of a neuron: by how much its wave over the inputs is shifted.",
    "pizza": "A network that adds modulo p: constant attention, then a ReLU MLP on the sum of two embeddings.",
    "QK circuit": "From a pair of query and key to a score: W_E W_Q W_K^T W_E^T, with positions, over the square root of d_head.",
    "quadrature": "A finite sum in the place of an integral: what the neurons of one key compute.",
    "query": "The last token, whose position the answer is read off.",
    "rank": "How many directions are peeled before the rest is bounded.",
    "residual": "What is left of a table when the directions that are understood are peeled off.",
    "rung": "A way to bound the differences within a row of a product of matrices; the ladder goes from knowing everything to knowing a number a factor.",
    "score": "What attention is the softmax of: an entry of the QK circuit.",
    "slack": "How far a proof must allow a quantity to be off, since it does not compute it.",
    "sound": "Of a bound: never above the truth, whatever the advice.",
    "strategy": "A way to prove: a search and a check, with parameters.",
    "tight": "Of a bound: near the truth.",
    "token": "A number from 0 to v - 1 as the network is told it.",
    "unexplained dimensions": "The paper's estimate of what a proof takes as given: how many numbers it looks at without a reason for them.",
    "v": "The number of different tokens; d_vocab in code.",
    "vote": "What an attended token adds to each logit, before attention weighs it.",
    "wheel": "The circle of a key's phases, with a place for every neuron; neighbours are on together.",
    "wrong token": "Any output but the right one.",
}
HEAD = """# Glossary

The terms that this book uses, and then the names that its menus, tables and figures give to things. An *id* is what code and command line take.

## Terms

```{glossary}
"""


def table(names: Names) -> list[str]:
    return ["| name, and id | what it is |", "|---|---|", *(f"| {name.label}<br>`{id}` | {name.says} |" for id, name in names.items()), ""]


def page() -> str:
    """The page as MyST markdown."""
    terms = [f"{term}\n  {said}\n" for term, said in sorted(TERMS.items(), key=lambda item: item[0].lower())]
    kinds = [line for kind, names in KINDS.items() for line in (f"## {kind}", "", *table(names))]
    return HEAD + "\n".join([*terms, "```", "", *kinds])


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE).write_text(page())
