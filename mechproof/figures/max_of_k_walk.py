"""The walk of the Max-of-K chapter: one input, its group, what is known of it, pass or fail, and the whole bound."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import ceil, comb

import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from torch import Tensor

import mechproof as mp

from ..explorable import plots
from ..explorable.explore import Explorer
from ..explorable.walk import walk
from ..max_of_k.family import skeleton_id
from ..max_of_k.paths import Paths
from ..max_of_k.subcubic import Claims, Skeleton
from ..proof.bound import Bound, digits_lo, of_inputs, percent_lo, short_int
from ..proof.family import Advice, Model
from .pieces import NOTE, against_trying, answered, best_but, choice, trying

RANKS = (0, 1, 2, 4, 8, 16)
GAPS = range(1, 11)
SKELETON = Skeleton("max_diff_exact", "mean_query+diff", "svd")
LIT = LinearSegmentedColormap.from_list("certified", ["#ececec", plots.QK])


@dataclass(frozen=True, eq=False)
class Group:
    """One group (q, m, all others smaller) of a bound at one rank and gap: what the check made of it."""

    bound: Bound
    own: Tensor           # the approximate scores under the query, less the maximum's [key]
    slack: float          # how much a difference of them may be off
    attention: tuple[float, float]
    line: Tensor          # what is added to the lines of the wrong tokens, at attention 0 and 1
    passes: bool
    margin: float         # the least that the right answer wins by, as the check has it


class Story:
    """The case that is followed, and the proofs it is a case of; each proved once."""

    def __init__(self, model: Model):
        self.model, self.paths, self.id = model, Paths(model), skeleton_id(SKELETON)
        self.v, self.K = model.sizes["d_vocab"], model.sizes["n_ctx"]
        self.q, self.m = round(0.453 * self.v), round(0.641 * self.v)
        others = [round(0.27 * self.v), round(0.05 * self.v)] + [round(0.13 * self.v)] * max(self.K - 4, 0)
        self.tokens = [*others[: self.K - 2][::-1], self.m, self.q][-self.K:]
        if self.K >= 4:                                                 # 3, 41, 17, 29: the maximum is not last but one
            self.tokens[-3:-1] = self.tokens[-2], self.tokens[-3]
        self.advice, self.group = lru_cache(None)(self._advice), lru_cache(None)(self._group)

    def _advice(self, rank: int) -> Advice:
        return mp.search(self.model, self.id, rank)

    def members(self, gap: int) -> int:
        """How many sequences have this query and maximum and no other token above maximum - gap."""
        n = self.K - 2
        return comb(self.K - 1, n) * (self.m - gap + 1) ** n

    def _group(self, rank: int, gap: int) -> Group:
        """The bound with this gap for the group, and the searched gaps for all others."""
        q, m, n, advice = self.q, self.m, self.K - 1, self.advice(rank)
        gaps = advice["gaps"].clone()
        gaps[q, m, n] = gap
        bound = mp.check(self.model, self.id, advice | {"gaps": gaps}, rank)
        votes, attention = SKELETON.pieces(self.paths, advice, rank)
        claims = Claims.of(gaps)
        row = (claims.rows[:, :3] == torch.tensor([q, m, n])).all(1)
        lo, hi = (float(end.mid[row]) for end in claims.interval(attention))
        wrong, u = float(votes.W.mid[m - claims.nearest[m, n], m]), float(votes.u.mid[q, m])
        own = attention.own.mid[q] - attention.own.mid[q, m]
        case = bound.why([0] * (self.K - 2) + [m, q])
        slack = float(attention.highest.mid[q, 0] - attention.own.mid[q, 0])
        return Group(bound, own, slack, (lo, hi), torch.tensor([wrong + u, u]), case.covered, case.margin_lo or 0.0)

    @cached_property
    def lines(self) -> Tensor:
        """L_m[i] + a R_m[i] at a = 0 and a = 1, of the wrong tokens that are worst somewhere between:
        [i, (token, 0, 1)].  From one crossing of two lines to the next the order does not change."""
        votes, _ = SKELETON.pieces(self.paths, self.advice(1), 1)
        L, R = votes.L.mid[self.m], votes.R.mid[self.m]
        L[self.m] = -torch.inf
        crossings = ((L - L[:, None]) / (R[:, None] - R)).flatten()
        ends = torch.cat([torch.tensor([0.0, 1.0]), crossings[(crossings > 0) & (crossings < 1)]]).sort().values
        worst = (L + (ends[1:] + ends[:-1])[:, None] / 2 * R).argmax(1).unique()
        return torch.stack([worst.double(), L[worst], (L + R)[worst]], 1)


def one_input(story: Story, figure) -> tuple[str, str]:
    """Attention as bars over the tokens, votes as bars over the answers."""
    (alpha, logits), q = answered(story.paths, story.tokens), story.q
    left, right = figure.add_axes((0.13, 0.17, 0.3, 0.68)), figure.add_axes((0.53, 0.17, 0.44, 0.68))
    left.barh(range(story.K), alpha, color=plots.QK, height=0.62)
    left.set_yticks(range(story.K), [*map(str, story.tokens[:-1]), f"{q} (query)"])
    left.invert_yaxis()
    for i, share in enumerate(alpha.tolist()):
        left.annotate(f"{digits_lo(100 * share, 1)}%", (share, i), (4, -3), **NOTE)
    left.set_xlim(0, 1.3)
    left.set_xticks([0, 0.5, 1])
    plots.percent_axis(left.xaxis, f"attention under the query {q}")
    left.set_title("It looks at")
    answer = int(logits.argmax())
    second = best_but(logits, answer)
    right.bar(range(story.v), logits - logits.mean(), color=plots.PALE, width=0.8)
    right.bar(answer, logits[answer] - logits.mean(), color=plots.OV, width=0.8)
    right.set_xlabel("possible answer")
    right.set_ylabel("logit, less the mean")
    right.set_title(f"It answers {answer}")
    looked = alpha[torch.tensor(story.tokens) == story.m].sum()
    lead = float(logits[answer] - logits[second])
    said = (f"Of {', '.join(map(str, story.tokens))} the network gives {digits_lo(100 * float(looked), 1)}% of its "
            f"attention to {story.m}{', copies it,' if answer == story.m else ''} and answers {answer}, {lead:.1f} "
            f"logits ahead of {second}")
    return said, f"Left: bars of attention. Right: bars of logits over {story.v} answers. {said}."


def forbidden(axes: Axes, story: Story, gap: int) -> None:
    """The band just below the maximum that the group leaves out."""
    if gap > 1:
        axes.axvspan(story.m - gap + 0.5, story.m - 0.5, facecolor="#f6ddd3", edgecolor=plots.OV, hatch="///",
                     linewidth=0)


def its_group(story: Story, figure, gap: int) -> tuple[str, str]:
    """The token axis with the forbidden band, and some of the members."""
    axes, limit, n = figure.add_axes((0.13, 0.17, 0.84, 0.68)), story.m - gap, 12
    forbidden(axes, story, gap)
    drawn = torch.rand((n, story.K - 2), generator=torch.Generator().manual_seed(0))
    rows = [[t for t in story.tokens[:-1] if t != story.m], *(drawn * (limit + 1)).long().tolist()]
    for i, free in enumerate(rows):
        axes.plot(free, [i] * len(free), "o", color=plots.NOISE, markersize=5)
    axes.plot([story.q] * len(rows), range(len(rows)), "s", color=plots.EU, markersize=5)
    axes.plot([story.m] * len(rows), range(len(rows)), "D", color=plots.OV, markersize=6)
    axes.set_xlim(-1, story.v)
    axes.set_ylim(n + 0.8, -1.6)
    axes.set_yticks([0, (n + 1) / 2], ["our input", "some of\nits group"])
    axes.grid(False)
    axes.set_xlabel("token")
    axes.annotate(f"query {story.q}", (story.q, -0.7), (0, 0), ha="center", color=plots.EU, **NOTE)
    axes.annotate(f"maximum {story.m}", (story.m, -0.7), (0, 0), ha="left", color=plots.OV, **NOTE)
    axes.annotate("no token may\nbe larger than\nthe maximum", (story.m + 8, 6), (0, 0), color="#666666", **NOTE)
    between = {1: "any below", 2: f"none at {limit + 1}"}.get(gap, f"none from {limit + 1} to {story.m - 1}")
    axes.set_title(f"The others are at most {limit}: {short_int(story.members(gap))} inputs at once")
    said = (f"{short_int(story.members(gap))} inputs share query {story.q} and maximum {story.m}, with all other "
            f"tokens at most {limit} ({between})")
    return said, f"Dots on a token axis, one row an input. {said}. The gap below the maximum is {gap}."


def understanding(story: Story, figure, rank: int, gap: int) -> tuple[str, str]:
    """The scores under the query: r directions and a band for the rest; the attention that follows."""
    group, m = story.group(rank, gap), story.m
    left, right = figure.add_axes((0.1, 0.17, 0.62, 0.68)), figure.add_axes((0.83, 0.17, 0.14, 0.68))
    keys = torch.arange(m + 1)
    exact = (story.paths.A.mid[story.q] - story.paths.A.mid[story.q, m])[: m + 1]
    forbidden(left, story, gap)
    own = group.own[: m + 1]
    rest = own[:-1]
    left.fill_between(keys[:-1], rest - group.slack, rest + group.slack, color=plots.QK, alpha=0.18, linewidth=0)
    left.plot(keys, own, color=plots.QK, linewidth=1.5)
    left.plot(keys, exact, ".", color="black", markersize=4)
    known = f"line: by {rank} direction{'s' * (rank != 1)}"
    for y, words, colour in ((0.19, "dots: the scores", "black"), (0.11, known, plots.QK),
                             (0.03, "band: what the rest may do", plots.QK)):
        left.text(0.4, y, words, color=colour, transform=left.transAxes, fontsize=8.5)
    left.axhline(0, color=plots.OV, linewidth=0.8)
    worst = float(own[: m - gap + 1].max()) + group.slack
    spread = float(exact.min())
    left.set_ylim(1.25 * spread, max(-0.35 * spread, 1))
    left.set_xlim(-1, m + 1)
    left.set_xlabel("key token")
    left.set_ylabel(f"score, less that of {m}")
    left.set_title(f"Rank {rank}: each difference known to ± {ceil(10 * group.slack) / 10:g}")
    lo, hi = group.attention
    right.bar(0, lo, color=plots.QK, width=0.6)
    right.bar(0, hi - lo, bottom=lo, facecolor="none", edgecolor=plots.QK, hatch="////", width=0.6, linewidth=0.8)
    right.set_xlim(-0.6, 0.6)
    right.set_xticks([])
    right.set_ylim(-0.02, 1.02)
    plots.percent_axis(right.yaxis, f"attention to {m}")
    right.set_title(f"≥ {digits_lo(100 * lo, 1)}%", fontsize=10)
    near = (f"every other score stays {digits_lo(-worst, 1)} below that of {m}" if worst < 0
            else f"another score might be {ceil(10 * worst) / 10:g} above that of {m}")
    said = (f"At rank {rank} {near}: in all {short_int(story.members(gap))} inputs {m} gets at least "
            f"{digits_lo(100 * lo, 1)}% of the attention")
    return said, (f"Left: attention scores under query {story.q}, exact as dots, {known.replace(':', '')}, "
                  f"with a band for the rest. Right: the interval of attention to {m}, {lo:.3f} to {hi:.3f}. {said}.")


def pass_or_fail(story: Story, figure, rank: int, gap: int) -> tuple[str, str]:
    """The worst wrong answers against the right one, over the interval of attention."""
    group, a = story.group(rank, gap), torch.tensor([0.0, 1.0])
    axes, lines = figure.add_axes((0.1, 0.17, 0.74, 0.68)), story.lines[:, 1:] + group.line
    lo, hi = group.attention
    axes.axvspan(lo, hi, color=plots.QK, alpha=0.18, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.8)
    low, high = float(lines.min()), float(lines.max())
    place = high
    at = lines[:, :1] + torch.tensor([[lo, hi]]) * (lines[:, 1:] - lines[:, :1])
    worst = int(at.amax(1).argmax())
    for i in lines[:, 1].argsort(descending=True).tolist():
        strong = {"color": plots.OV, "linewidth": 2} if i == worst else {"color": plots.NOISE, "linewidth": 1}
        axes.plot(a, lines[i], **strong)
        place = min(place - 0.06 * (high - low), float(lines[i, 1]))    # one name does not cover another
        axes.annotate(f"answer {int(story.lines[i, 0])}", (1, place), (4, -3), color="#666666", **NOTE)
    axes.annotate(f"{len(lines)} of {story.v - 1} wrong answers: the others stay below these", (0, 0), (6, 8),
                  xycoords="axes fraction", color="#666666", **NOTE)
    end, crosses = int(at[worst].argmax()), float(at.max()) >= 0
    axes.plot([lo, hi][end], at[worst, end], "o", color=plots.EU if group.passes else plots.OV, markersize=10, zorder=4)
    axes.set_xlim(0, 1)
    plots.percent_axis(axes.xaxis, f"attention to {story.m} (shaded: what it can be)")
    axes.set_ylabel("wrong minus right, logits")
    at_all = f"at rank {rank} and gap {gap}"
    axes.set_title(f"Pass {at_all}: every wrong answer stays below" if group.passes
                   else f"Fail {at_all}" + (": a wrong answer might win" if crosses else ", though no line crosses"))
    name = int(story.lines[worst, 0])
    fails = (f"{name} might beat {story.m}, for all that rank {rank} and gap {gap} know" if crosses else
             "no line crosses, but the proof tests one curve above all of them, and that does")
    said = (f"Pass: in each of the {short_int(story.members(gap))} inputs {story.m} wins by at least "
            f"{digits_lo(group.margin, 1)} logits; the hardest wrong answer is {name}" if group.passes else
            f"Fail: {fails}; the group stays open")
    return said, (f"Lines of the worst wrong answers over the attention to {story.m}; what it can be, {lo:.3f} to "
                  f"{hi:.3f}, is shaded. {said}.")


def shares(story: Story, bound: Bound) -> Tensor:
    """What is certified of the inputs of every pair, [q, m]."""
    claims, worst, v, K = bound.case.claims, bound.case.worst, story.v, story.K
    q, m, n, g = (x.double() for x in claims.rows[worst < 0].unbind(1))
    free = n - (q < m).double()
    ways = torch.tensor([comb(K - 1, i) for i in range(K)])[free.long()] * (m - g + 1) ** free
    lit = torch.zeros(v, v).double().index_put_((q.long(), m.long()), ways, accumulate=True)
    lit += torch.diag((bound.case.alone < 0).double() * (torch.diagonal(claims.gaps[:, :, 0]) >= 1))
    return lit / in_pair(v, K)


def in_pair(v: int, K: int) -> Tensor:
    """The number of inputs of every (query, maximum), [q, m]; one where there are none."""
    q, m = torch.arange(v).double()[:, None], torch.arange(v).double()
    return torch.where(q < m, (m + 1) ** (K - 1) - m ** (K - 1), torch.where(q == m, (m + 1) ** (K - 1), 1.0))


def by_area(story: Story, table: Tensor, height: int = 96, width: int = 192) -> Tensor:
    """The table as a picture in which every pair is as large as its number of inputs: maxima along x, queries up y."""
    x, y = (torch.arange(width) + 0.5) / width, (torch.arange(height) + 0.5) / height
    m = (story.v * x.double() ** (1 / story.K)).long()
    one, whole = ((m + 1).double() ** n - m.double() ** n for n in (story.K - 1, story.K))
    q = torch.minimum((y[:, None] * whole / one.clamp_min(1)).long(), m)
    return table[q, m.expand(height, -1)]


def all_groups(story: Story, figure, rank: int) -> tuple[str, str]:
    """The map of pairs whose lit area is the bound, and the operations it took."""
    bound = mp.check(story.model, story.id, story.advice(rank), rank)
    axes, bars = figure.add_axes((0.1, 0.17, 0.5, 0.68)), figure.add_axes((0.74, 0.34, 0.22, 0.34))
    picture = by_area(story, shares(story, bound))
    axes.imshow(picture, cmap=LIT, vmin=0, vmax=1, origin="lower", extent=(0, 1, 0, 1), aspect="auto",
                interpolation="none")
    ticks = [round(story.v * share) - 1 for share in (0.5, 0.625, 0.75, 0.875, 1)]
    at = lambda m: ((m + 0.5) / story.v) ** story.K
    axes.set_xticks([at(m) for m in ticks], [str(m) for m in ticks])
    axes.set_yticks([])
    axes.grid(False)
    axes.set_xlabel("maximum (as wide as its number of inputs)")
    axes.set_ylabel("query, from 0 up to the maximum")
    counts = in_pair(story.v, story.K)[: story.m + 1, story.m]
    choice(axes, at(story.m), float(counts[: story.q].sum() / counts.sum()), size=9)
    noted = NOTE | {"bbox": {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1.5}}
    axes.annotate("our group", (at(story.m), float(counts[: story.q].sum() / counts.sum())), (9, -3), **noted)
    for words, y in (("query = maximum", 1 - float(counts[-1] / counts.sum()) / 2),
                     ("query < maximum; darker: a larger share", 0.06)):
        axes.annotate(words, (0.98, y), (0, -3), ha="right", **noted)
    axes.set_title(f"Blue, by its shade: {percent_lo(bound.correct, bound.total)} is certified"
                   if bound.correct > bound.total // 10**4 else "Blue, by its shade: next to nothing is certified")
    brute = trying(story.model)
    against_trying(bars, bound.flops, brute, "every input")
    said = (f"All groups, each at its own gap: {of_inputs(bound.correct, bound.total)} are proved right, in "
            f"1/{brute / bound.flops:.0f} of the operations that trying them takes")
    return said, (f"Map of queries and maxima at rank {rank}, each as large as its number of inputs, the darker blue "
                  f"the larger the share that is certified. Bars of operations. {said}.")


def a_proof(model: Model) -> Explorer:
    """One group of a subcubic proof, from an input to the bound, by rank and gap: the walk that opens the chapter."""
    story = Story(model)
    ranks = [r for r in RANKS if r <= min(model.sizes["d_model"], model.sizes["d_head"])]
    steps = {"one input": lambda figure: one_input(story, figure),
             "its group": lambda figure, gap: its_group(story, figure, gap),
             "what is understood": lambda figure, rank, gap: understanding(story, figure, rank, gap),
             "pass or fail": lambda figure, rank, gap: pass_or_fail(story, figure, rank, gap),
             "all groups": lambda figure, rank: all_groups(story, figure, rank)}
    gaps = [g for g in GAPS if g <= story.m - story.q]
    searched = int(story.advice(1)["gaps"][story.q, story.m, story.K - 1])
    return walk(steps, {"rank": 1, "gap": min(max(searched, 1), gaps[-1])},
                "Step on to the end. Then go back to pass or fail: make the gap one smaller than what passes, and "
                "raise the rank until the group passes again; then once more. That trade is what this book is about.",
                3.7, rank=ranks, gap=gaps)
