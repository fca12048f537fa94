"""The built page in a browser: a slider moves figure and alt text, nothing leaves the machine, nothing complains."""

from __future__ import annotations

import gzip
import os
import shutil
import sys
from pathlib import Path

import labs
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "book" / "_ext"))
SITE = Path(__file__).parents[1] / "_build" / "html"
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip("chromium is not installed; the browser tests run where it is, and always in CI")
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    assert (SITE / "index.html").exists(), "the site is not built: run `make book`"
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.problems, page.requests_out = [], []
    page.on("pageerror", lambda e: page.problems.append(str(e)))
    page.on("console", lambda m: page.problems.append(m.text) if m.type == "error" else None)
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else page.requests_out.append(r.url))
    yield page
    assert page.problems == [] and page.requests_out == []
    page.close()


PAGES = ("index", "max_of_k", "past_the_paper", "why_it_works", "certificates", "proof_gone_wrong", "pizza_quadrature", "noise_limits",
         "reproduction", "references", "several_heads", "superposition", "groups", "your_own_network", "api", "reading_group",
         "background_proofs", "background_paths", "background_fourier", "background_rounding",
         "slides_1", "slides_2", "slides_3", "handout_max_of_k", "handout_past_the_paper", "handout_pizza_quadrature",
         "handout_noise_limits")
EXPLORERS = {"index": 1, "max_of_k": 7, "past_the_paper": 3, "proof_gone_wrong": 1, "pizza_quadrature": 9, "noise_limits": 11,
             "reproduction": 3, "several_heads": 3, "superposition": 6, "groups": 7, "your_own_network": 1,
             "background_proofs": 1, "background_paths": 1,
             "background_fourier": 1, "background_rounding": 1}                # at least


def open_chapter(page, name: str = "max_of_k") -> None:
    page.goto((SITE / "book" / f"{name}.html").as_uri())
    page.wait_for_load_state("load")


def state(explorer) -> tuple[str, str, str]:
    image = explorer.locator("img")
    return image.get_attribute("src"), image.get_attribute("alt"), explorer.locator("[data-headline]").inner_text()


def test_a_slider_changes_figure_alt_text_and_numbers(page):
    open_chapter(page)
    explorer = page.locator("[data-explorer]").nth(1)
    before = state(explorer)
    explorer.locator("input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    after = state(explorer)
    assert all(a != b for a, b in zip(before, after)) and after[2].startswith(">= ")
    assert page.evaluate("(i) => i.decode().then(() => i.naturalWidth)", explorer.locator("img").element_handle()) > 400
    page.keyboard.press("ArrowLeft")
    assert state(explorer)[1:] == before[1:]


def test_a_menu_disables_the_control_without_effect(page):
    open_chapter(page)
    explorer = page.locator("[data-explorer]").nth(1)
    explorer.locator("select").select_option(label="cubic")
    assert explorer.locator("input[type=range]").is_disabled() and "Cubic" not in state(explorer)[1][:5]
    explorer.locator("select").select_option(label="quadratic QK")
    assert explorer.locator("input[type=range]").is_enabled()


def stated(explorer) -> tuple[str, str]:
    """Alt text and headline that the library computed for the setting of the controls; nbval compares them with a fresh run."""
    return tuple(explorer.evaluate("""root => {
      const data = JSON.parse(root.querySelector("[data-alts]").textContent);
      const at = [...root.querySelectorAll("[data-control]")].reduce((n, c, i) => n * data.sizes[i] + Number(c.value), 0);
      return [data.settings[at].alt, data.settings[at].headline];
    }"""))


@pytest.mark.parametrize("chapter", EXPLORERS)
def test_every_control_moves_its_figure_from_end_to_end(page, chapter):
    open_chapter(page, chapter)
    explorers = page.locator("[data-explorer]:not([data-ask])")
    assert explorers.count() >= EXPLORERS[chapter]
    for i in range(explorers.count()):
        explorer = explorers.nth(i)
        for control in explorer.locator("[data-control]").all()[::-1]:             # a walk's step last: it puts others off
            if control.is_disabled():
                continue
            seen = set()
            last = control.evaluate("c => c.tagName === 'SELECT' ? c.options.length - 1 : Number(c.max)")
            for value in sorted({0, last // 2, last}):
                control.evaluate("(c, v) => { c.value = v; c.dispatchEvent(new Event('input', {bubbles: true})); }", str(value))
                src, alt, headline = state(explorer)
                assert src.startswith("data:image/svg+xml,") and len(alt) > 40
                assert (alt, headline) == stated(explorer)
                assert control.evaluate("c => c.type !== 'range' || c.parentElement.querySelector('output').textContent === c.ariaValueText")
                seen.add((src, alt))
            assert len(seen) == len({0, last // 2, last}), f"explorer {i}: {control.get_attribute('data-control')} changes nothing"


def test_asking_about_typed_tokens_agrees_with_the_library(page):
    import mechproof as mp
    from mechproof.figures import max_of_k as figures
    from mechproof.figures.ask import Ask
    bound = mp.prove(mp.load("max-of-4/0"), figures.NAMED_IDS["exact QK"])
    open_chapter(page)
    ask, answers = page.locator("[data-ask]"), set()
    for text in ("3 41 17 29", "3, 41, 40, 29", "41 41 41 41", "0 0 0 0", "63 62 61 60", "5 5 9 9", "7 5 6 2", "5 5 5 0"):
        ask.locator("input").fill(text)
        answer = ask.locator("[data-answer]").inner_text()
        case = bound.why([int(t) for t in text.replace(",", " ").split()])
        assert answer.startswith("Certified") == case.covered
        says = ask.locator("[data-network]").inner_text()                # the network's own answer, from float32 tables
        assert says == Ask(bound, [3, 41, 17, 29]).network(text)
        answers.add((case.covered, "which is right" in says))
        assert case.reason.split(" needs")[0].split(", all")[0] in answer
    assert answers == {(True, True), (False, True), (False, False)}      # not certified is not wrong, and wrong is not certified
    ask.locator("input").fill("1 2 99 4")
    assert ask.locator("[data-answer]").inner_text().startswith("Give 4 whole numbers from 0 to 63")


@pytest.mark.parametrize("chapter, theorems", [("max_of_k", 2), ("past_the_paper", 1), ("several_heads", 1), ("pizza_quadrature", 6),
                                               ("noise_limits", 1), ("superposition", 4), ("groups", 7)])
def test_formulas_theorems_and_solutions_render(page, chapter, theorems):
    open_chapter(page, chapter)
    page.wait_for_selector("mjx-container svg")
    assert page.locator(".proof.theorem").count() >= theorems and page.locator("mjx-merror").count() == 0
    solution = page.locator(".solution.dropdown, .solution").first
    assert solution.count() == 1
    assert page.get_by_text("WARNING").count() == 0


@pytest.mark.parametrize("chapter", EXPLORERS)
def test_first_frames_show_without_javascript(browser, chapter):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    open_chapter(page, chapter)
    explorers = page.locator("[data-explorer]:not([data-ask])")
    assert explorers.count() >= EXPLORERS[chapter]
    for i in range(explorers.count()):
        src, alt, headline = state(explorers.nth(i))
        assert src.startswith("data:image/svg+xml,") and alt and headline
    context.close()


def test_every_picture_has_alt_text(page):
    for name in PAGES:
        open_chapter(page, name)
        assert page.locator("main img:not([alt]), main img[alt='']").count() == 0


def test_the_verifier_and_its_vectors_can_be_downloaded(page):
    open_chapter(page, "certificates")
    links = [a.get_attribute("href") for a in page.locator("main a.download").all()]
    assert len(links) >= 2 and all((SITE / "book" / link).resolve().stat().st_size > 1000 for link in links)
    page.wait_for_selector("table")


def test_a_shared_address_opens_the_same_setting(page):
    """Moving a control writes the address; the address, opened elsewhere, sets the controls, also when only it changes."""
    open_chapter(page, "noise_limits")
    explorer = page.locator("[data-explorer]").nth(1)
    explorer.locator("select").select_option(label="norms of rows")
    explorer.locator("input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    moved, address = state(explorer), page.url
    assert "#drop_off?strategy=gram&rank=" in address
    page.goto("about:blank")
    page.goto(address)
    assert state(explorer) == moved
    page.evaluate("location.hash = '#drop_off?strategy=frobenius&rank=8'")
    page.wait_for_function("() => document.querySelectorAll('[data-explorer] img')[1].alt.includes('Frobenius')")
    assert "rank 8" in state(explorer)[1]
    page.goto(address.split("#")[0] + "#drop_off?strategy=nonsense&rank=999")
    assert state(explorer)[1]


def test_a_point_says_its_name_and_stays_chosen_in_all_figures(page):
    """Pointing at a model's dot shows its name; a click marks the model in every figure of the page that has it."""
    open_chapter(page, "noise_limits")
    place = page.evaluate("""() => {
      const root = [...document.querySelectorAll("[data-explorer]")].find((e) => e.innerHTML.includes("#claim?"));
      const data = JSON.parse(root.querySelector("[data-frames]").textContent), image = root.querySelector("img");
      image.scrollIntoView({ block: "center" });
      const box = image.getBoundingClientRect(), i = 3 * Math.floor(data.points[0].length / 6);
      return { x: box.left + data.points[0][i + 1] / 1000 * box.width, y: box.top + data.points[0][i + 2] / 1000 * box.height };
    }""")
    page.mouse.move(place["x"], place["y"])
    tip = page.locator(".mechproof-figure div", has_text="max-of-4/").locator("visible=true").first
    name = tip.inner_text()
    page.mouse.click(place["x"], place["y"])
    page.mouse.move(5, 5)
    marked = page.evaluate("""(name) => [...document.querySelectorAll("[data-explorer]")].filter(
      (e) => [...e.querySelectorAll(".mechproof-figure div")].some((d) => d.style.display !== "none" && d.textContent === name)).length""", name)
    assert marked >= 2                                                   # the claim and the ladder over all models


def test_the_guides_links_open_what_they_say(page):
    """Each address in the guide for reading groups sets every control of its figure."""
    open_chapter(page, "reading_group")
    addresses = [a.get_attribute("href") for a in page.locator("main a[href*='?']").all()]
    assert len(addresses) >= 9
    for address in addresses:
        page.goto("about:blank")
        page.goto((SITE / "book").as_uri() + "/" + address)
        page.wait_for_load_state("load")
        name, wanted = address.split("#")[1].split("?")
        found = page.evaluate("""name => {
          const root = [...document.querySelectorAll("[data-explorer]")].find((e) => e.innerHTML.includes(`#${name}?`));
          const values = JSON.parse(root.querySelector("[data-alts]").textContent).values;
          return [...root.querySelectorAll("[data-control]")].map((c, i) => `${c.dataset.control}=${values[i][Number(c.value)]}`).join("&");
        }""", name)
        assert found == wanted, address


WALKS = {"max_of_k": "Of 3, 41, 17, 29", "pizza_quadrature": "modulo 113", "noise_limits": "Under query 29"}


@pytest.mark.parametrize("width, theme", [(1280, "light"), (390, "dark"), (1280, "dark"), (390, "light")])
@pytest.mark.parametrize("chapter", WALKS)
def test_a_walk_goes_from_first_to_last_step(browser, chapter, width, theme):
    """By keyboard, and back and on again by touch: picture, headline and alt text follow, nothing is left to complain of."""
    page = browser.new_page(viewport={"width": width, "height": 900}, has_touch=True, color_scheme=theme)
    problems = []
    page.on("pageerror", lambda e: problems.append(str(e)))
    page.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
    open_chapter(page, chapter)
    page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
    walk = page.locator("[data-explorer]").first
    step, (back, on) = walk.locator("input[data-control=step]"), walk.locator("button[data-by]").all()
    seen = [state(walk)]
    assert WALKS[chapter] in seen[0][2] and back.is_disabled() and not walk.locator("[data-dead]").count()
    step.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
        seen.append(state(walk))
        assert seen[-1][1:] == stated(walk)
    assert on.is_disabled() and all(len(set(kind)) == 5 for kind in zip(*seen))
    for _ in range(4):
        back.tap()
    assert state(walk)[1:] == seen[0][1:] and back.is_disabled()
    for _ in range(4):
        on.tap()
    assert state(walk)[1:] == seen[-1][1:] and step.get_attribute("aria-valuetext").startswith("5 of 5")
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert problems == []
    page.close()


def test_the_picture_comes_before_its_code(page):
    """On every page that opens with a figure, at both widths, half of it at least stands on the first screen."""
    for name in ("index", "max_of_k", "past_the_paper", "pizza_quadrature", "noise_limits"):
        open_chapter(page, name)
        image, code = page.locator("[data-explorer] img").first.bounding_box(), page.locator("div.cell_input").first
        assert image["y"] + image["height"] / 2 < 900 and (not code.count() or code.bounding_box()["y"] > image["y"])


def test_theorems_and_code_know_one_another(page):
    """Below each theorem stands what computes it, one click away, and what attacks it; from there a click leads back."""
    import theorems
    code, tests = theorems.who_says()
    assert set(code) == set(tests) == set(theorems.LABELS)               # no docstring speaks of a theorem that is none
    files = {name.split("::")[0] for names in tests.values() for name in names}
    assert all((Path(__file__).parent / name).exists() for name in files)
    open_chapter(page, "pizza_quadrature")
    assert page.locator(".in-code").count() == page.locator(".proof.theorem").count()
    page.locator(".in-code a").filter(has_text="by_turns").click()
    page.wait_for_load_state("load")
    place = page.locator(f"[id='{page.url.split('#')[1]}']")
    assert place.count() == 1 and "by_turns" in place.inner_text()
    place.locator("xpath=..").get_by_text("Theorem", exact=False).locator("visible=true").last.click()
    page.wait_for_load_state("load")
    assert "pizza_quadrature.html#thm-arcs" in page.url


def test_a_word_says_what_it_means_where_it_comes_first(page):
    open_chapter(page)
    words = {a.inner_text().lower(): a for a in page.locator("a.word").all()}
    assert {"query", "rank", "gap", "accuracy", "direct path"} <= set(words)
    assert "read off" in words["query"].get_attribute("title")
    words["query"].click()
    assert page.url.endswith("glossary.html#term-query")


def test_the_first_screen_shows_what_the_book_is_about(page):
    open_chapter(page, "index")
    box = page.locator("[data-explorer] img").first.bounding_box()
    assert box["y"] + box["height"] / 2 < 900 and page.locator("main").get_by_text("On how many of its inputs is it right?").is_visible()


def test_the_site_can_be_searched_offline(browser):
    """From a folder too, where browsers refuse to fetch the excerpts below the hits."""
    page = browser.new_page()
    page.goto((SITE / "search.html").as_uri() + "?q=quadrature")
    page.wait_for_selector("#search-results li a")
    assert "pizza" in page.locator("#search-results").inner_text().lower()
    page.close()


def test_figures_can_be_read_on_a_phone(browser):
    """Every explorer is drawn for the phone: no wider than the screen, words of ten points no smaller than ten pixels."""
    page = browser.new_page(viewport={"width": 390, "height": 800})
    for name in PAGES:
        open_chapter(page, name)
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), name
        explorers = page.locator("[data-explorer]:not([data-ask])")
        for explorer in explorers.all() if name in EXPLORERS else ():
            explorer.scroll_into_view_if_needed()
            page.wait_for_function("root => root.hasAttribute('data-narrow') && root.querySelector('img').complete",
                                   arg=explorer.element_handle())
            shown, own = explorer.locator("img").evaluate("async i => { await i.decode(); return [i.clientWidth, i.naturalWidth]; }")
            assert shown <= 390 and 10 * 96 / 72 * shown / own >= 10, (name, explorer.get_attribute("id"))
            assert state(explorer)[1:] == stated(explorer)
        for shown, own in page.evaluate("""async () => Promise.all([...document.querySelectorAll("article picture:has(source) img")].map(
                async (i) => { i.scrollIntoView(); await i.decode(); return [i.clientWidth, i.naturalWidth]; }))"""):
            assert shown <= 390 and 10 * 96 / 72 * shown / own >= 10, name
    page.close()


def test_what_is_wider_than_a_phone_says_so(browser):
    """Formulas and tables that scroll fade at the edge, until one has scrolled to their end; none is cut off for good."""
    page = browser.new_page(viewport={"width": 390, "height": 800})
    open_chapter(page, "pizza_quadrature")
    page.wait_for_selector("mjx-container.more, span.math.more")
    page.wait_for_selector(".output.text_html.more")
    cut = page.evaluate("""() => [...document.querySelectorAll("article span.math, article mjx-container")].filter((e) =>
      e.scrollWidth > e.clientWidth + 8 && !["auto", "scroll"].includes(getComputedStyle(e).overflowX)).length""")
    assert cut == 0
    table = page.locator(".output.text_html.more").first
    table.evaluate("e => { e.dataset.here = 1; e.scrollLeft = e.scrollWidth; }")
    page.wait_for_selector("[data-here]:not(.more)")
    page.close()


def test_a_phone_that_is_turned_gets_the_wide_drawing(browser):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    open_chapter(page)
    walk = page.locator("[data-explorer]").first
    walk.locator("button[data-by='1']").click()
    page.wait_for_selector("[data-explorer][data-narrow]")
    narrow = state(walk)
    page.set_viewport_size({"width": 800, "height": 390})
    page.wait_for_selector("[data-explorer]:not([data-narrow])")
    wide = state(walk)
    assert narrow[1:] == wide[1:] and narrow[0] != wide[0]
    page.close()


def test_what_a_group_takes_along(page):
    """Slides of each session: every figure that the guide's table points to, every question; arrows move. Handouts: one page."""
    open_chapter(page, "reading_group")
    titles = page.locator("main h2", has_text="Session").all_inner_texts()
    assert len(titles) == 3
    for number, title in enumerate(titles, 1):
        open_chapter(page, "reading_group")
        session = page.locator("section", has=page.get_by_role("heading", name=title.rstrip("#"), exact=False)).last
        rows, links = session.locator("tbody tr").count(), session.locator("tbody a[href*='?']").count()
        questions = session.locator("xpath=./ul/li").count()
        open_chapter(page, f"slides_{number}")
        assert page.locator("section").count() == 1 + rows + links + questions and page.locator("img").count() == links >= 1
        assert page.locator("details").count() == questions >= 3 and page.locator("main a a").count() == 0
        page.keyboard.press("ArrowRight")
        page.wait_for_function("() => document.querySelectorAll('section')[1].getBoundingClientRect().top === 0")
    for chapter in ("max_of_k", "past_the_paper", "pizza_quadrature", "noise_limits"):
        open_chapter(page, f"handout_{chapter}")
        assert page.locator(".theorem").count() == 1 == page.locator("img").count() and page.locator("p", has_text="Learned.").count() == 3
        assert page.locator("img").evaluate("async i => { await i.decode(); return i.naturalWidth; }") > 400
        printed = (SITE / "book" / f"handout_{chapter}.pdf").read_bytes()
        assert printed.startswith(b"%PDF") and b"/Count 1\n" in printed, f"{chapter}'s handout is not one page"


def test_no_page_is_heavy():
    """At most 450 KB each as a server sends it; what a phone loads besides, drawing by drawing, at most 150 KB."""
    for path in (SITE / "book").glob("*.html"):
        assert len(gzip.compress(path.read_bytes())) < 450_000, path.name
    for path in (SITE / "_static" / "narrow").glob("*.js"):
        assert len(gzip.compress(path.read_bytes())) < 150_000, path.name


def test_no_page_names_the_folder_that_it_was_built_in():
    for path in SITE.rglob("*.html"):
        assert str(SITE.parent.parent) not in path.read_text(), path.name


def test_paper_shows_the_setting_that_was_chosen(page):
    open_chapter(page, "past_the_paper")
    explorer = page.locator("[data-explorer]").first
    explorer.locator("select").select_option(index=0)
    chosen = state(explorer)
    on_screen = explorer.locator("img").bounding_box()["width"]
    page.emulate_media(media="print")
    assert state(explorer) == chosen and explorer.locator("img").is_visible()
    assert explorer.evaluate("e => getComputedStyle(e).breakInside") == "avoid"
    page.set_viewport_size({"width": 590, "height": 800})                  # paper is narrow, and figures do not scroll there
    frame, image = explorer.locator(".mechproof-figure").bounding_box(), explorer.locator("img").bounding_box()
    assert image["width"] <= frame["width"] + 1 and image["width"] < on_screen


@pytest.mark.parametrize("width, theme", [(1250, "light"), (390, "dark")])
def test_axe_finds_no_serious_violation(browser, width, theme):
    """Names, roles, contrast and focus, by axe-core (tests/vendor, from npm) on every page."""
    axe = (Path(__file__).parent / "vendor" / "axe.min.js").read_text()
    page, found = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme), []
    for name in PAGES:
        open_chapter(page, name)
        page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
        page.wait_for_timeout(500)
        page.evaluate(axe)
        report = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        found += [(name, v["id"], v["nodes"][0]["html"][:200]) for v in report["violations"] if v["impact"] in ("serious", "critical")]
    page.close()
    assert found == []


def test_a_plain_file_server_misses_nothing(browser):
    """Every page, its downloads and the search over http: nothing missing, nothing from elsewhere."""
    page, bad = browser.new_page(), []
    with labs.files(SITE) as home:
        page.on("response", lambda r: bad.append((r.status, r.url)) if r.status >= 400 or not r.url.startswith((home, "data:")) else None)
        for name in PAGES:
            page.goto(f"{home}/book/{name}.html")
            page.wait_for_load_state("networkidle")
            for link in page.eval_on_selector_all("main a.download", "all => all.map((a) => a.href)"):
                assert page.request.get(link).ok, link
        page.goto(f"{home}/search.html?q=quadrature")
        page.wait_for_selector("#search-results li a")
        page.close()
    assert bad == []
