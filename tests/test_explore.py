"""The two faces of an explorer: the page's element and the live widgets."""

from __future__ import annotations

import datetime
import json
import re

import pytest

from mechproof.explorable import faces, plots
from mechproof.explorable.explore import explore, shown
from mechproof.explorable.narrow import WIDTH, narrow
from mechproof.proof.family import InputError


def draw(figure, kind, rank):
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    height = 0 if kind == "flat" else rank
    axes.bar([0], [height])
    return f"height {height}", f"One bar of height {height}"


def toy(**changes):
    settings = {"start": {"kind": "high", "rank": 2}, "idle": lambda kind, rank: ("rank",) if kind == "flat" else ()}
    return explore(draw, **{**settings, **changes}, kind={"flat": "flat", "high": "high & mighty"}, rank=range(4))


def payload(html: str, name: str):
    return json.loads(re.search(rf"<script type=\"application/json\" {name}>(.*?)</script>", html, re.S).group(1).replace("<\\/", "</"))


def test_the_element_holds_every_setting():
    html = toy().html()
    alts, frames = payload(html, "data-alts"), payload(html, "data-frames")
    assert alts["sizes"] == [2, 4] and len(alts["settings"]) == 8
    assert [s["headline"] for s in alts["settings"]] == ["height 0"] * 4 + [f"height {r}" for r in range(4)]
    assert len(frames["frames"]) <= 5            # equal pictures are stored once
    assert html.count("aria-valuetext=") == 1 and 'aria-valuetext="2"' in html           # a menu says its own
    assert 'alt="One bar of height 2"' in html and "high &amp; mighty" in html and html.count("data-explorer") == 1


def test_the_page_puts_together_what_was_drawn():
    """Every frame, unpacked as the script does it, is the drawing of its setting, line for line."""
    explorer = toy()
    html = explorer.html()
    for setting in explorer.settings():
        svg, headline, alt = explorer.frame(**setting)
        address = {name: str(value) for name, value in setting.items()}
        assert shown(html, address) == ("\n".join(svg.splitlines()), headline, alt)
    with pytest.raises(ValueError):
        shown(html, {"kind": "high", "rank": "9"})


def test_marks_that_say_their_style_once_are_the_same_marks(monkeypatch):
    """Give every mark its group's style back, and the drawing is matplotlib's."""
    def drawn() -> str:
        figure = plots.new_figure()
        axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
        for size, colour, alpha in ((9, plots.QK, 1), (16, plots.OV, 0.5)):
            plots.dots(axes, range(5), range(5), size, colour, alpha)
        return plots.svg(figure)

    once = drawn()
    monkeypatch.setattr(plots, "MARKS", re.compile("(?!)"))
    each = drawn()
    back = re.sub(r'<g( style="[^"]*")>\n((?: *<use [^>]*/>\n)+)</g>\n', lambda g: g[2].replace("/>", f"{g[1]}/>"), once)
    assert back == each and len(once) < len(each) and once.count("<use") == each.count("<use")


def test_idle_controls_are_those_without_effect():
    """What `idle` declares is what the frames show: along an idle control nothing changes."""
    html = toy().html()
    settings, at = payload(html, "data-alts")["settings"], payload(html, "data-frames")["at"]
    for start in (0, 4):
        same = len({frame for frame, _ in at[start : start + 4]}) == 1
        assert all((1 in s["idle"]) == same for s in settings[start : start + 4])


def test_drawing_again_gives_the_same_bytes():
    assert toy().html() == toy().html()


def test_too_many_frames_and_bad_starts_are_refused():
    with pytest.raises(InputError, match="401 settings; at most 400"):
        explore(lambda figure, rank: ("", ""), rank=range(401)).html()
    with pytest.raises(InputError, match="start rank=9 is no value"):
        explore(draw, {"rank": 9}, rank=range(4))


@pytest.mark.parametrize("variable", ["JPY_SESSION_NAME", "VSCODE_PID", "MECHPROOF_MODE"])
def test_live_where_a_frontend_is_attached(monkeypatch, variable):
    for name in ("JPY_SESSION_NAME", "VSCODE_PID", "MECHPROOF_MODE"):
        monkeypatch.delenv(name, raising=False)
    assert not faces.is_live()
    monkeypatch.setenv(variable, "live")
    assert faces.is_live()


def test_live_widgets_answer_and_disable():
    box = toy().widget()
    kind, rank, _, picture = box.children
    assert "height 2" in picture.value
    rank.value = 3
    assert "height 3" in picture.value and "One bar of height 3" in picture.value
    kind.value = "flat"
    assert rank.disabled and "height 0" in picture.value


def test_the_last_of_many_moves_wins_and_long_work_says_so(monkeypatch):
    """On a kernel's loop: twenty moves in a row draw once, at the last; what takes long shows a sign until it is done."""
    import asyncio
    import time

    from mechproof.explorable import live
    drawn, signs = [], []

    def slow(figure, kind, rank):
        time.sleep(0.05 if rank == 3 else 0)
        signs.append(face.busy.value if drawn else "")
        drawn.append(rank)
        return draw(figure, kind, rank)

    monkeypatch.setattr(live, "BUSY", 0.02)
    explorer = explore(slow, {"kind": "high", "rank": 0}, kind={"high": "high", "flat": "flat"}, rank=range(20))
    face = live.Live(explorer.controls, explorer.start, explorer.idle, explorer.picture)

    async def moves():
        for rank in range(20):
            face.inputs["rank"].value = rank
        await asyncio.sleep(0.05)
        face.inputs["rank"].value = 3
        await asyncio.sleep(0.2)

    asyncio.run(moves())
    assert drawn == [0, 19, 3] and "computing" in signs[-1] and signs[1] == "" and face.busy.value == "" and "height 3" in face.picture.value


def test_a_live_drawing_that_cannot_be_made_says_why():
    def fussy(figure, rank):
        if rank:
            raise InputError("rank 1 is out of range; expected 0")
        return "fine", "a drawing that is fine"
    box = explore(fussy, rank=[0, 1]).widget()
    box.children[0].value = 1
    assert "expected 0" in box.children[-1].value
    box.children[0].value = 0
    assert "fine" in box.children[-1].value


def test_the_page_carries_every_margin_rounded_down():
    """A group that the proof accepts has a positive margin on the page, at most the library's; the others do not."""
    import base64

    import numpy as np
    import torch

    import mechproof as mp
    from mechproof.figures import max_of_k as figures
    from mechproof.figures.ask import Ask
    bound = mp.prove(mp.load("max-of-4/0"), figures.NAMED_IDS["exact QK"])
    data, case = json.loads(Ask(bound, [3, 41, 17, 29]).groups()), bound.case
    margins = np.frombuffer(base64.b64decode(data["margins"]), "<f4").reshape(64, 64, 4).astype(float)
    q, m, n, _ = case.claims.rows.unbind(1)
    on_page, ours = torch.from_numpy(margins)[q, m, n], -case.worst
    assert ((on_page > 0) == (ours > 0)).all() and (on_page <= ours).all() and (on_page > ours - 1e-5).all()
    assert (ours > 0).any()


def test_asking_on_the_page_and_in_python():
    import mechproof as mp
    from mechproof.figures import max_of_k as figures
    from mechproof.figures.ask import Ask
    bound = mp.prove(mp.load("max-of-4/0"), figures.NAMED_IDS["exact QK"])
    ask = Ask(bound, [3, 41, 17, 29])
    assert ask.answer("3 41 17 29").startswith("Certified") and ask.answer("3, 41, 40, 29").startswith("Not certified")
    assert "expected 4 whole numbers" in ask.answer("3 4") and "<script>" in ask.html() and ask.html() == ask.html()
    field, out = ask.widget().children
    field.value = "1 2 3 64"
    assert "expected 4 whole numbers" in out.value


def test_a_kernel_offers_finer_values():
    explorer = explore(draw, {"kind": "high", "rank": 2}, fine={"rank": range(9)}, kind={"high": "high", "flat": "flat"}, rank=[0, 2, 8])
    assert payload(explorer.html(), "data-alts")["sizes"] == [2, 3]
    box = explorer.widget()
    box.children[1].value = 5
    assert "height 5" in box.children[-1].value


def test_your_own_model_is_proved_or_refused_in_one_line(tmp_path):
    """A file with the right tensors gets its bounds, the strongest first; another gets one line; a shipped name works too."""
    import torch

    import mechproof as mp
    from mechproof import zoo
    from mechproof.figures.yours import Yours
    model, path = mp.load("max-of-4/3"), tmp_path / "mine.safetensors"
    zoo.save_atomically(path, dict(model.tensors), model.family.answers)
    zoo.save_atomically(tmp_path / "asked.safetensors", dict(model.tensors), {})
    yours = Yours(str(path), ("cubic", "separable", "exact"))
    found = yours.bounds(yours.load(f"'{path}' "))
    assert [b.strategy for _, b in found] == ["exact", "separable", "cubic"] and found[0][1].correct == mp.prove(model, "exact").correct
    assert all(label in yours.text(str(path)) for label, _ in found)
    zoo.save_atomically(tmp_path / "other.safetensors", {"W_E": torch.zeros(3, 2)}, {})
    for bad in (str(tmp_path / "other.safetensors"), str(tmp_path / "none.safetensors"), "max-of-4/999"):
        assert "\n" not in yours.text(bad) and yours.text(bad)
    assert "does not say normalization_type and n_heads" in yours.text(str(tmp_path / "asked.safetensors"))
    out = (box := yours.widget()).children[2]
    (field, upload), (say, button) = (row.children for row in box.children[:2])
    say.value, field.value = "normalization_type='none', n_heads=1", str(tmp_path / "asked.safetensors")
    button.click()
    assert "branch and bound" in out.value and "run on 1000 random inputs it is right on" in out.value
    say.value, field.value = "", "max-of-4-stripped/0"
    button.click()
    assert "branch and bound" in out.value and ">= 9" in out.value.replace("&gt;", ">")
    assert len(Yours("").bounds(mp.load("pizza-31/5"))) >= 3 and "Of a file of yours" in repr(yours)
    # a file that is handed over, as ipywidgets 8 does it
    say.value, content = "normalization_type=none n_heads=1", (tmp_path / "asked.safetensors").read_bytes()
    upload.value = ({"name": "asked.safetensors", "type": "", "size": len(content), "content": memoryview(content),
                     "last_modified": datetime.datetime.now(datetime.timezone.utc)},)
    assert "Model(asked.safetensors, max_of_k" in out.value and "branch and bound" in out.value


def test_what_is_said_in_a_field():
    from mechproof.figures.yours import pairs, uploaded
    both = {"normalization_type": "none", "n_heads": "2"}
    assert pairs("normalization_type='none', n_heads=2") == pairs("normalization_type=none n_heads=2") == both
    assert pairs('inputs="? ? 113" task=sum') == {"inputs": "? ? 113", "task": "sum"} and pairs("nothing") == {}
    assert uploaded({"a.pt": {"metadata": {}, "content": b"x"}}) == ("a.pt", b"x")                # ipywidgets 7


def test_coordinates_are_coarse_and_words_are_not():
    from mechproof.explorable import plots
    figure = plots.new_figure()
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    axes.plot([0.123456789, 1], [0.2, 0.987654321])
    axes.set_title("99.958712% of 0.0012345")
    text = plots.svg(figure)
    assert "99.958712% of 0.0012345" in text
    assert not [tag for tag in re.findall(r"<[^>]+>", text) if re.search(r"\.\d{3}", tag)]


def test_named_points_stand_where_they_are_drawn():
    """Places in thousandths of the figure, found again in the SVG's own coordinates; a set of points that comes twice is kept once."""
    from mechproof.explorable import plots

    def draw(figure, shift: int, other: int):
        axes = figure.add_axes((0.1, 0.2, 0.8, 0.6))
        plots.dots(axes, [0.0, 1.0 + shift], [0.0, 1.0], 20, "red")
        plots.name_points(axes, [0.0, 1.0 + shift, 9.0], [0.0, 1.0, 1.0], ["first", "second", "outside of what is shown"])
        axes.set_xlim(0, 4)
        axes.set_ylim(0, 2)
        return f"shift {shift}", f"Two named dots, shift {shift}, other {other}, for a test of places."

    data = payload(explore(draw, shift=[0, 1], other=[0, 1]).html(), "data-frames")
    assert data["names"] == ["first", "second"] and len(data["points"]) == 2
    assert data["points"][0] == [0, 100, 800, 1, 300, 500] and data["points"][1] == [0, 100, 800, 1, 500, 500]
    assert [points for _, points in data["at"]] == [0, 0, 1, 1]


def test_for_a_phone_panels_stand_below_one_another_and_all_words_are_on_the_picture():
    """Two panels with long words, a legend beside them and a line below: laid out anew nothing leaves the figure."""
    figure = plots.new_figure()
    with plots.house():
        left, right = figure.add_axes((0.1, 0.17, 0.3, 0.68)), figure.add_axes((0.6, 0.17, 0.2, 0.68))
        for axes in (left, right):
            axes.plot(range(5), label="a line with a rather long name that explains what it is")
            axes.set_title("A finding that takes more words than a narrow panel has room for, at any size")
            axes.set_xlabel("how far something may be off, on an axis with a long label (thousands)")
            axes.set_xticks(range(0, 5), [f"{10**9 + i:,}" for i in range(5)])
        right.legend(loc="center left", bbox_to_anchor=(1.03, 0.5))
        left.annotate("a remark that is long enough to need two lines", (0, 3))
        figure.text(0.1, 0.01, "What stands below the panels says in a whole sentence what the choice above does to them.")
        narrow(figure)
        figure.draw_without_rendering()
        renderer = figure._get_renderer()
        assert figure.get_figwidth() == WIDTH and left.get_position().y0 > right.get_position().y1
        assert abs(left.get_position().width - right.get_position().width) < 0.1 and right.get_position().width > 0.6
        words = [*figure.texts, *left.texts, right.get_legend(), *(t for a in (left, right) for t in (a._left_title, a.xaxis.label))]
        boxes = [text.get_window_extent(renderer) for text in words]
        assert all(figure.bbox.padded(1).contains(*corner) for box in boxes for corner in (box.min, box.max))
        titles = [box for box in boxes if box.y1 < figure.bbox.y1 and box.height > 20]
        assert titles, "a long title was not broken"
        shown = [tick.label1.get_window_extent(renderer) for tick in left.xaxis.get_major_ticks() if tick.label1.get_visible()]
        assert 2 <= len(shown) < 5 and all(a.x1 < b.x0 for a, b in zip(shown, shown[1:]))


@pytest.mark.parametrize("page", ["frontier", "walk", "neuron", "claim", "three_things"])
def test_on_a_phone_the_books_figures_keep_their_words_on_the_picture(page):
    """Figures of the book, at their start and their ends: no word leaves the drawing, no two remarks of a panel touch."""
    import mechproof as mp
    from mechproof import zoo
    from mechproof.figures import max_of_k_walk, noise_limits, noise_over_models, past_the_paper, pizza_quadrature
    explorer = {"frontier": lambda: past_the_paper.frontier(past_the_paper.Proofs(mp.load("max-of-4/0")), "exact", 12),
                "walk": lambda: max_of_k_walk.a_proof(mp.load("max-of-4/0")),
                "neuron": lambda: pizza_quadrature.neuron(pizza_quadrature.Survey(mp.load("pizza-31/1"))),
                "claim": lambda: noise_over_models.claim(zoo.results("noise")),
                "three_things": lambda: noise_limits.three_things(noise_limits.Survey(mp.load("max-of-4/0"), 0), 1)}[page]()
    settings = explorer.settings()
    for setting in [explorer.start, *settings[:: max(1, len(settings) // 6)], settings[-1]]:
        explorer.frame(narrow, **setting)
        figure = explorer._figures[0]
        with plots.house():
            figure.draw_without_rendering()
            boxes = [[t.get_window_extent() for t in axes.texts if t.get_visible() and t.get_text()] for axes in figure.axes]
            ends = [t.get_window_extent() for axes in figure.axes if axes.axison for t in (axes._left_title, axes.xaxis.label) if t.get_text()]
        assert all(box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1 for box in [*ends, *(b for some in boxes for b in some)]), setting
        for some in boxes:
            assert not any(a.padded(-2.5).overlaps(b.padded(-2.5)) for i, a in enumerate(some) for b in some[:i]), setting


def test_the_drawings_for_phones_have_the_settings_of_the_page():
    """Same settings in the same order, other drawings; the script is named as the element, so that neither outlives the other."""
    explorer = toy()
    name, script = explorer.narrow_script()
    drawings, page = json.loads(script[script.index("= {\"") + 2 : -2]), payload(explorer.html(), "data-frames")
    assert f'id="{name}"' in explorer.html() and f'["{name}"] = ' in script
    assert [frame for frame, _ in drawings["at"]] == [frame for frame, _ in page["at"]]
    width = lambda stored: float(re.search(r'viewBox="0 0 ([\d.]+)', "\n".join(stored["lines"]))[1])
    assert width(page) == 72 * plots.WIDTH and width(drawings) == round(72 * WIDTH, 2)
