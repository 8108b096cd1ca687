"""The report in a real browser: silent console, no request, and words light up under mouse, finger and keys."""

import chromium
import numpy as np
import pytest
import study_folder as made

from seqjax.studies import report

pytestmark = pytest.mark.skipif(chromium.found() is None, reason='no Chromium here: apt-get install chromium')


@pytest.fixture(scope='module')
def story(tmp_path_factory):
    story = tmp_path_factory.mktemp('story')
    study = made.study()
    report.write('bottleneck', study, made.write(story / 'bottleneck', study))
    report.write_index(story)
    return story


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    with chromium.tab(tmp_path_factory.mktemp('profile')) as tab:
        yield tab


@pytest.fixture
def tab(browser):
    browser.events.clear()
    browser.screen(1200, 900)
    return browser


@pytest.fixture
def page(tab, story):
    tab.open((story / 'bottleneck' / 'report.html').as_uri())
    return tab


def lit(tab, words='source'):
    """How strongly each word is lit, read off the colours that the browser computed."""
    return tab.run(f"[...document.querySelectorAll('.{words} .word')].map(word => {{"
                   'const parts = getComputedStyle(word).backgroundColor.match(/[\\d.]+/g).map(Number);'
                   'return parts.length > 3 ? parts[3] : 1; })')


def settled(tab):
    """Lets colours arrive that change slowly."""
    tab.run('Promise.all(document.getAnimations().map(animation => animation.finished)).then(() => 0)')


def weights(layers, heads):
    """The first sentence's, without padding: layers, heads, target, source."""
    return made.attention(layers, heads)['decoder/cross_attention/cross_attention'][:, 0, :, :6, :4]


def choose(tab, name, place):
    """Chooses from a list as a person does: the value changes and an event says so."""
    tab.run(f"(() => {{ const list = document.querySelector('select[name={name}]'); list.selectedIndex = {place};"
            "list.dispatchEvent(new Event('change', {bubbles: true})); })()")
    settled(tab)


@pytest.mark.parametrize('path', ['bottleneck/report.html', 'index.html'])
@pytest.mark.parametrize(('width', 'phone', 'dark'), [(1200, False, False), (390, True, True)])
def test_pages_open_silently_and_ask_for_nothing(tab, story, path, width, phone, dark):
    tab.screen(width, 900, phone=phone, dark=dark)
    address = (story / path).as_uri()
    tab.open(address)
    assert tab.complaints() == []
    assert tab.requests() == [address]
    assert tab.run('document.documentElement.scrollWidth') == width, 'nothing sticks out'
    background = tab.run('getComputedStyle(document.body).backgroundColor')
    assert background == ('rgb(22, 24, 28)' if dark else 'rgb(252, 251, 248)')


def test_the_mouse_lights_up_the_words_that_a_word_looks_at(page):
    for t in (2, 4, 0):
        page.hover(f'.target .word:nth-child({t + 1})')
        settled(page)
        np.testing.assert_allclose(lit(page), weights(1, 1)[0, 0, t], atol=0.01)
        assert page.run("document.querySelector('.target [aria-pressed=true] span').textContent") == made.TARGET[t]
    strongest = int(weights(1, 1)[0, 0, 0].argmax())
    assert page.run("document.querySelector('.spoken').textContent").startswith(
        f'“quatre” looks at “{made.SOURCE[strongest]}” {round(round(61 * weights(1, 1)[0, 0, 0].max()) / 61 * 100)} %')


def test_the_mouse_on_a_word_of_the_source_shows_who_looks_at_it(page):
    page.hover('.source .word:nth-child(2)')
    settled(page)
    np.testing.assert_allclose(lit(page, 'target'), weights(1, 1)[0, 0, :, 1], atol=0.01)


def test_layers_and_heads_and_sentences_are_chosen(page):
    choose(page, 'run', 1)
    assert page.run("[...document.querySelectorAll('select[name=head] option')].length") == 5
    page.hover('.target .word:nth-child(2)')
    settled(page)
    np.testing.assert_allclose(lit(page), weights(2, 4)[0, :, 1].mean(0), atol=0.01)
    choose(page, 'layer', 1)
    choose(page, 'head', 3)
    np.testing.assert_allclose(lit(page), weights(2, 4)[1, 2, 1], atol=0.01)
    choose(page, 'sentence', 1)
    assert page.run("[...document.querySelectorAll('.target span')].map(word => word.textContent)") == [
        made.NASTY, '</s>']
    assert page.run("document.querySelectorAll('.target b, .target script').length") == 0
    assert page.complaints() == []


def test_a_finger_lights_words_up(tab, story):
    tab.screen(390, 800, phone=True)
    tab.open((story / 'bottleneck' / 'report.html').as_uri())
    tab.tap('.target .word:nth-child(4)')
    settled(tab)
    np.testing.assert_allclose(lit(tab), weights(1, 1)[0, 0, 3], atol=0.01)


def test_keys_reach_every_word(page):
    page.run("document.querySelector('.choices select:not([hidden])').focus()")
    page.run("document.querySelector('select[name=sentence]').focus()")
    page.key('Tab', 9)
    for t in range(3):
        settled(page)
        np.testing.assert_allclose(lit(page), weights(1, 1)[0, 0, t], atol=0.01)
        page.key('ArrowRight', 39)
    page.key('ArrowLeft', 37)
    settled(page)
    np.testing.assert_allclose(lit(page), weights(1, 1)[0, 0, 2], atol=0.01)
    assert page.run('getComputedStyle(document.activeElement).outlineStyle') == 'solid'


def test_the_printed_page_shows_all_of_it(page):
    page.screen(794, 1123, media='print')
    assert page.run("getComputedStyle(document.querySelector('.choices')).display") == 'none'
    assert page.run("getComputedStyle(document.querySelector('.scroll')).overflow") == 'visible'
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert page.run("document.querySelector('details').open")
    assert len(page.call('Page.printToPDF', printBackground=True)['data']) > 10_000
    assert page.complaints() == []


def test_figures_are_drawn_in_the_pages_colours(tab, story):
    seen = []
    for dark in (False, True):
        tab.screen(1200, 900, dark=dark)
        tab.open((story / 'bottleneck' / 'report.html').as_uri())
        seen.append(tab.run("getComputedStyle([...document.querySelectorAll('figure svg text')].find("
                            "text => text.textContent === 'gru')).fill"))
    assert seen == ['rgb(10, 123, 145)', 'rgb(63, 208, 230)']
