"""What everything is called: one label and one sentence a thing, in one table for menus, tables and command line.

Problem: a proof that a menu calls one thing, a table another and the text a third is three proofs to a reader.  Idea:
what menus and tables show is looked up here.  Ids are for code, and for the book where it speaks of that (as the ladder
of the noise chapter does).  A family from outside the package gives its own labels.

>>> STRATEGIES["separable-small"].label
'few buckets'
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Name(NamedTuple):
    """How readers know a thing, and what it is, in a sentence."""

    label: str
    says: str


Names = Mapping[str, Name]

RUNGS = {
    "exact": Name("multiplied out", "All factors are multiplied, and nothing is lost."),
    "gram": Name("norms of rows",
        "All factors but the last are multiplied; exact norms of the product's rows from the Gram matrix of the last."),
    "per_dimension": Name("dimension by dimension",
        "Absolute values of the product left of a break times the ranges of what is right of it; the best break."),
    "norms": Name("norms around a product",
        "The middle factors are multiplied; then norms of rows, an operator norm and the longest column."),
    "spectral": Name("singular value",
        "The largest singular value of the whole product, times sqrt 2, for every row alike."),
    "operator": Name("singular values of factors",
        "The product of the factors' largest singular values, times sqrt 2."),
    "recursive": Name("dimensions, factor by factor",
        "Absolute values times ranges, one factor after the other: no two matrices are multiplied."),
    "frobenius": Name("Frobenius norms of factors",
        "The product of the factors' Frobenius norms, times sqrt 2: one number a factor is all that is known."),
}
TIERS = {
    "exact": RUNGS["exact"],
    "gram": RUNGS["gram"],
    "spectral": Name("operator norms",
        "A few directions; of the rest norms of rows, operator norms between them, and the longest column."),
    "frobenius": Name("no products",
        "A few directions; of the rest norms of rows, Frobenius norms between, and the longest column."),
}
SCORES = {
    "exact_EQKE+max_diff_exact": Name("exact QK", "The table of scores is multiplied out."),
    "max_diff_exact": Name("rank-r QK, exact rest", "r directions, and the exact range of every row of the rest."),
    "svd": Name("rank-r QK, rest by singular value", "r directions, and the largest singular value of the rest."),
    "max_diff": Name("rank-r QK, rest per dimension", "r directions, and the rest dimension by dimension."),
    "mean+max_diff": Name("rank-r QK, mean, rest per dimension",
        "As rest per dimension, with the rest's mean row multiplied out."),
    "max_diff_subproduct": Name("rank-r QK in four factors",
        "Directions out of each of the four factors, and the rest dimension by dimension at the best break."),
    "mean+max_diff_subproduct": Name("rank-r QK in four factors, mean",
        "As in four factors, with the mean row multiplied out."),
    "max_diff_subproduct_recursive": Name("quadratic QK",
        "Directions out of each of the four factors, and the rest factor by factor: no work beyond v^2."),
    "mean+max_diff_subproduct_recursive": Name("quadratic QK, mean",
        "As quadratic QK, with the mean row multiplied out."),
    "mean_recursive+max_diff_subproduct_recursive": Name("quadratic QK, means",
        "As quadratic QK, with a mean row of every factor."),
}
DIRECT = {
    "max_diff_exact": Name("exact EU",
        "The direct path is multiplied out; its worst vote for each query and maximum."),
    "global_max_diff_exact": Name("one number for EU",
        "It is multiplied out, and the largest difference within a row of it stands for all."),
    "max_diff": Name("EU per dimension", "Each dimension of the queries at its worst over W_U."),
    "mean_query+max_diff": Name("EU by mean query",
        "The mean query's row is multiplied out; the queries' differences from it per dimension."),
    "svd_query+max_diff": Name("EU by top direction",
        "As by mean query, with the part of the mean that lies along the queries' top direction."),
}
ATTENTION = {
    "mean_query+diff": Name("reference attention",
        "Exact at a reference attention; from there the steepest slope upwards, the flattest downwards."),
    "drop_average_query_per_output_logit_reasoning": Name("maxima apart",
        "The direct path and the attended votes are each taken at their worst, even if by different wrong tokens."),
}
STRATEGIES = {
    "brute_force": Name("brute force", "Every input is run: nothing is explained, and the count is the truth."),
    "cubic": Name("cubic",
        "For every query and maximum one smaller token at a time, copies of the maximum in the two extreme places."),
    "exact": Name("branch and bound",
        "Query by query, and more finely wherever that leaves something open, down to single inputs that are tried."),
    "separable": Name("query by query",
        "A sum of one term a token, at its worst in every bucket of tokens, for each query and group of wrong tokens."),
    "separable-grouped": Name("queries in buckets",
        "As query by query, with the queries taken by the bucket too, at their worst."),
    "separable-small": Name("few buckets",
        "As queries in buckets, with fewer buckets and groups: shorter and looser."),
    "monte_carlo": Name("tables checked at random",
        "The tables are advice, held against the weights by random products; they may fool it with a stated chance."),
    "compact-gram": Name("compact, norms of rows",
        "Every table from a few directions, and the rest by norms of rows."),
    "compact-spectral": Name("compact, operator norms",
        "Every table from a few directions, and the rest by operator norms."),
    "compact-frobenius": Name("compact, no products",
        "Every table from a few directions, and the rest by Frobenius norms: no two factors are multiplied."),
    "wheel": Name("arcs of the wheel",
        "The sum over neurons exactly: in the order of their phases neighbours fire together, and arcs are added in "
        "place of neurons."),
    "wheel-short": Name("arcs through narrower doors",
        "As arcs of the wheel, with fewer directions of the residual stream let through."),
    "paper": Name("the bare pizza",
        "The paper's reading alone, an amplitude |cos|; whatever a neuron does besides is counted as error."),
    "moments": Name("moments",
        "Each key's neurons in a few clusters, a series in their phases, and a bound on its tail."),
    "moments_exact_neurons": Name("moments, worst neurons exactly",
        "As moments, with the neurons that fit worst computed one by one."),
    "features": Name("feature by feature",
        "What every output is off by, at most, as a sum over the features that are on: no set of them is tried."),
    "cells": Name("neurons at their cells",
        "Each neuron exactly where it votes, by the one entry of x and of y that it reads; elsewhere at its worst."),
    "rivals": Name("rival by rival",
        "Each answer against each rival, given where both come from; all else at its worst, column by column."),
    "exact_activations": Name("every neuron", "Every neuron at every pair, through the same doors."),
    "cosets": Name("coset by coset",
        "Every neuron is told only in which coset each input lies; tables over cosets are added up, those that share "
        "most first."),
    "directions": Name("directions of the output",
        "Some directions of the votes exactly, of the rest what is a share of x and a share of y, and norms."),
}
BASES = {
    "irreps": Name("irreps", "The irreps that most of the votes lie in, one after the other."),
    "singular": Name("singular vectors", "The directions in which the votes are largest, whatever they mean."),
}
PEELS = {
    "QK": Name("both sides", "r singular directions of W_Q W_K^T, out of all four factors."),
    "four": Name("each factor", "r directions of each of the four factors."),
    "query": Name("query side alone", "r singular directions of W_Q W_K^T, out of the queries alone."),
}
NULLS = {
    "gaussian": Name("independent entries",
        "Every entry drawn by itself, as large as the factor's are on average."),
    "rows": Name("rows turned", "Every row in a direction drawn at random, at its own length."),
    "haar": Name("factors turned",
        "A random rotation between neighbours: each factor keeps everything but how it lies to the next."),
}
EDITS = {
    "stripped": Name("stripped",
        "Rank-1 scores, one row for the direct path, votes of low rank, no positions: five small tensors."),
    "projected": Name("projected", "The same architecture with low-rank products W_Q W_K^T and W_V W_O."),
    "decayed": Name("decayed", "Trained on with strong weight decay."),
    "polished": Name("polished", "Trained on with every pair, the learning rate falling from the start."),
}
SAID = {
    "normalization_type": Name("normalization", "none, LN, LNPre (its weights folded into others), RMS or RMSPre."),
    "n_heads": Name("number of heads", "How many heads stand side by side in matrices without a heads' axis."),
    "task": Name("task", "What is right: max, min, sum (modulo d_input), or table (a tensor with an answer an input)."),
    "inputs": Name("form of an input", "Its tokens with ? for any, like '? ? 113' where the last is always an = sign."),
    "d_input": Name("tokens of a ?", "A ? is any token below this."),
    "layout": Name("layout of matrices", "xW (TransformerLens), Wx (grokking notebooks) or linear (PyTorch's)."),
    "act_fn": Name("activation", "Of an MLP: relu, gelu (by erf) or gelu_new (by tanh)."),
    "attention": Name("kind of attention", "learned, mean (every position alike) or ones (all positions added up)."),
    "attention_dir": Name("direction of attention", "causal or bidirectional."),
    "attn_scale": Name("scale of scores", "What scores are divided by; sqrt(d_head) if not said."),
    "eps": Name("epsilon of normalization", "What is added to the variance; 1e-5 if not said."),
}
KINDS: Mapping[str, Names] = {
    "Strategies": STRATEGIES, "Ways to know the direct path": DIRECT, "Ways to know the scores": SCORES,
    "Ways to handle attention": ATTENTION,
    "Ways to choose directions": BASES, "Ways to know a table": TIERS, "Rungs": RUNGS, "Peels": PEELS, "Nulls": NULLS,
    "Edits": EDITS,
    "What a file may have to be told": SAID,
}


def labels(names: Names, ids: Iterable[str] | None = None) -> dict[str, str]:
    """{id: label}, of these ids or of all: what a menu takes."""
    return {id: names[id].label for id in (names if ids is None else ids)}
