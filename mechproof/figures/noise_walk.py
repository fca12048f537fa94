"""The walk of the noise chapter: a row of scores, what a rung knows of its rest, what it must allow, and the bound."""

from __future__ import annotations

from functools import lru_cache

import torch

from ..explorable import plots
from ..explorable.explore import Explorer
from ..explorable.walk import walk
from ..max_of_k.paths import Paths
from ..noise import residual
from ..proof.bound import percent_lo, share_lo
from ..proof.peeling import Known
from ..proof.product_bounds import RUNGS
from .noise_limits import LABELS, Survey, nearest, numbered, times
from .pieces import NOTE, bars, choice, missing_axis, truth_line


class Story:
    """One input, the row of scores under its query, and the row as every rung knows it."""

    def __init__(self, survey: Survey):
        self.survey, v, K = survey, survey.model.sizes["d_vocab"], survey.model.sizes["n_ctx"]
        self.q, self.m = round(0.453 * v), round(0.641 * v)
        self.others = [round(0.594 * v), *[round(0.27 * v)] * (K - 3)] if K > 2 else []
        paths = Paths(survey.model)
        self.A, self.B, self.tokens = paths.A.mid[self.q], paths.B.mid[self.q], [*self.others, self.m, self.q]
        self.known = lru_cache(None)(self._known)
        self.split = survey.split

    def _known(self, rung: str, rank: int) -> Known:
        """The scores as a rung has them: as a proof knows them, `residual.known`."""
        model = self.survey.model
        return residual.known(model, RUNGS[rung], "QK", residual.advise(model, "QK", rank))

    def off(self, rung: str, rank: int) -> float:
        """How far a difference of two scores of the row may be off."""
        return float(self.known(rung, rank).slack.mid[self.q])

    def least(self, own: torch.Tensor, off: float) -> float:
        """Attention to the maximum if every other score of the input is that much higher."""
        others = torch.tensor(self.tokens) != self.m
        return float((own[self.tokens] + self.B + off * others).softmax(0)[~others].sum())


def one_row(story: Story, figure, rank: int) -> tuple[str, str]:
    """The scores under one query and what is left of them."""
    left, right = figure.add_axes((0.09, 0.17, 0.4, 0.68)), figure.add_axes((0.58, 0.17, 0.4, 0.68))
    rest = story.split(rank).noise[story.q]
    left.plot(story.A, ".", color="black", markersize=4)
    left.plot(story.A - rest, color=plots.QK, linewidth=1.5)
    left.set_xlabel("key token")
    left.set_ylabel("score")
    left.set_title(f"{rank} direction{'s' * (rank != 1)} (line), all (dots)")
    right.plot(rest, ".-", color=plots.NOISE, linewidth=0.8, markersize=4)
    top, low = int(rest.argmax()), int(rest.argmin())
    for k in (top, low):
        right.plot(k, rest[k], "o", color=plots.OV, markersize=8)
    right.axhline(0, color="black", linewidth=0.6)
    largest = story.split(story.survey.some_ranks[0]).noise[story.q]
    right.set_ylim(1.4 * float(largest.min()), 1.25 * float(largest.max()))
    right.set_xlabel("key token")
    right.set_title("What is left, larger")
    span, found = float(story.A.max() - story.A.min()), float(rest.max() - rest.min())
    said = (f"Under query {story.q} the scores span {span:.3g}. Without {rank} direction{'s' * (rank != 1)} a rest is "
            f"left that spans {found:.3g}, from token {low} to token {top}")
    return said, f"Left: scores over keys, and as the directions have them. Right: the rest. {said}."


def rungs(story: Story, figure, strategy: str, rank: int) -> tuple[str, str]:
    """What each rung says that the rest spans at most."""
    axes = figure.add_axes((0.3, 0.17, 0.64, 0.68))
    found = {LABELS[rung]: story.off(rung, rank) for rung in RUNGS}
    chosen, least = LABELS[strategy], 0.01
    colours = [plots.CHOICE if name == chosen else plots.PALE for name in found]
    lengths = {name: max(x, 2 * least) for name, x in found.items()}
    bars(axes, lengths, map("{:.3g}".format, found.values()), colours)
    axes.set_xscale("log")
    axes.set_xlim(least, 10000)
    axes.set_xticks([0.01, 0.1, 1, 10, 100, 1000], ["0.01", "0.1", "1", "10", "100", "1000"])
    axes.set_xlabel("the rest spans at most (log scale)")
    true = story.off("exact", rank)
    axes.set_title(f"{chosen.capitalize()}: {times(found[chosen] / true)} times the truth")
    said = (f"Multiplied out, the rest is known to span {true:.3g}: all of it is used" if strategy == "exact" else
            f"Multiplied out, the rest spans {true:.3g}. With '{chosen}' a proof can only say: at most "
            f"{found[chosen]:.3g}, {times(found[chosen] / true)} times as much")
    return said, f"Bars of what each rung bounds the row's rest by at rank {rank}. {said}."


def band(story: Story, figure, strategy: str, rank: int) -> tuple[str, str]:
    """The row with the band that the rung leaves around it."""
    axes, off, m = figure.add_axes((0.1, 0.17, 0.87, 0.68)), story.off(strategy, rank), story.m
    row = story.known(strategy, rank).table.mid[story.q]
    own = (row - row[m])[: m + 1]
    keys = torch.arange(m)
    axes.fill_between(keys, own[:-1] - off, own[:-1] + off, color=plots.CHOICE, alpha=0.3, linewidth=0)
    axes.plot(own, color=plots.QK, linewidth=1.5)
    axes.plot((story.A - story.A[m])[: m + 1], ".", color="black", markersize=4)
    axes.axhline(0, color=plots.OV, linewidth=0.8)
    near = max(m - 16, 0)
    axes.set_xlim(near - 0.5, m + 0.5)
    axes.set_ylim(*(times_ * float(story.A[near] - story.A[m]) for times_ in (1.2, -0.6)))
    axes.set_xlabel("key token")
    axes.set_ylabel(f"score, less that of {m}")
    rivals = int((own[:-1] + off >= 0).sum())
    axes.set_title(f"{rivals} of {m} smaller tokens might be looked at as much as {m}")
    above = int((story.A[:m] >= story.A[m]).sum())
    said = (f"For all that '{LABELS[strategy]}' at rank {rank} tells, {rivals} of the {m} smaller tokens might score "
            f"as high as {m} itself; in truth {above or 'none'} {'do' if above != 1 else 'does'}")
    return said, f"Scores less that of {m}, with a band of {off:.3g}. {said}."


def opponent(story: Story, figure, strategy: str, rank: int) -> tuple[str, str]:
    """Attention to the maximum: in the network, with the rest left out, with the worst rest that is not excluded."""
    axes, known = figure.add_axes((0.3, 0.17, 0.64, 0.68)), story.known(strategy, rank)
    tokens = ", ".join(map(str, story.tokens))
    own = known.table.mid[story.q]
    shares = {"the network": story.least(story.A, 0.0), "the rest left out": story.least(own, 0.0),
              "the worst rest allowed": story.least(own, story.off(strategy, rank))}
    bars(axes, {name: 100 * x for name, x in shares.items()}, (f"{share_lo(x, 1)}%" for x in shares.values()),
         (plots.TRUTH, plots.NOISE, plots.OV))
    axes.set_xlim(0, 118)
    axes.set_xticks([0, 50, 100], ["0%", "50%", "100%"])
    axes.set_xlabel(f"attention to {story.m} in {tokens}")
    network, without, worst = (share_lo(x, 1) for x in shares.values())
    axes.set_title(f"Left out: {float(without) - float(network):+.1f} points. At its worst: "
                   f"{float(worst) - float(network):+.1f}")
    said = (f"In {tokens} the network gives {story.m} {network}% of its attention. The proof has to allow for "
            f"{worst}%: its opponent picks the worst rest that '{LABELS[strategy]}' cannot exclude")
    return said, f"Bars of attention to {story.m}. {said}."


def whole(story: Story, figure, strategy: str, rank: int) -> tuple[str, str]:
    """What the proof certifies of all inputs, along how far it lets scores be off."""
    survey = story.survey
    axes = figure.add_axes((0.11, 0.17, 0.86, 0.68))
    axes.set_xscale("log")
    axes.set_xlim(0.01, 10000)
    axes.set_xticks([0.01, 0.1, 1, 10, 100, 1000], ["0.01", "0.1", "1", "10", "100", "1000"])
    missing_axis(axes, survey.truth / 2)
    truth_line(axes, survey.truth)
    size = {rung: float(RUNGS[rung](survey.split(rank).rest).mid.mean()) for rung in RUNGS}
    numbered(axes, list(size.values()), [survey.missing(rung, rank) for rung in RUNGS], plots.NOISE)
    choice(axes, size[strategy], survey.missing(strategy, rank))
    axes.annotate("the network's accuracy", (0.01, survey.truth), (4, 4), **NOTE)
    axes.set_xlabel("scores may be off by (mean over queries, log scale)")
    bound = survey.bound(strategy, rank)
    share = percent_lo(bound.correct, bound.total)
    axes.set_title(f"{LABELS[strategy].capitalize()}: {share} certified")
    best = survey.bound("exact", rank)
    said = (f"Over all queries: '{LABELS[strategy]}' at rank {rank} certifies {share} of the inputs; multiplied out, "
            f"the same proof certifies {percent_lo(best.correct, best.total)}")
    return said, f"Each rung by how far it lets scores be off and what it certifies. {said}."


def a_row(survey: Survey, strategy: str, rank: int) -> Explorer:
    """One row of scores followed through the rungs to the bound: the walk that opens the chapter."""
    story, ranks = Story(survey), survey.some_ranks
    steps = {"one row": lambda figure, rank: one_row(story, figure, rank),
             "a rung": lambda figure, strategy, rank: rungs(story, figure, strategy, rank),
             "its band": lambda figure, strategy, rank: band(story, figure, strategy, rank),
             "an opponent": lambda figure, strategy, rank: opponent(story, figure, strategy, rank),
             "all inputs": lambda figure, strategy, rank: whole(story, figure, strategy, rank)}
    return walk(steps, {"strategy": strategy, "rank": nearest(ranks, rank)},
                "Step on to the end. Then go back to its band and down the list of strategies: the rest does not "
                "change, what a proof knows of it does.", 3.7, strategy=LABELS, rank=ranks)
