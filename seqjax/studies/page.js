'use strict';
(() => {
  addEventListener('beforeprint', () => document.querySelectorAll('details').forEach(part => { part.open = true; }));
  const room = document.getElementById('gaze');
  if (!room) return;
  const { runs, digits } = JSON.parse(document.getElementById('gaze-data').textContent);
  const [run, sentence, layer, head] = ['run', 'sentence', 'layer', 'head'].map(
    name => room.querySelector(`select[name=${name}]`));
  const source = room.querySelector('.source'), target = room.querySelector('.target');
  const spoken = room.querySelector('.spoken');
  let weights = [];

  const fill = (select, names) => {
    const kept = Math.min(Math.max(select.selectedIndex, 0), names.length - 1);
    select.replaceChildren(...names.map((name, value) => new Option(name, value)));
    select.selectedIndex = kept;
    select.closest('label').hidden = names.length < 2;
  };
  const word = (text, place) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'word';
    button.dataset.place = place;
    button.tabIndex = place ? -1 : 0;
    const [name, share] = ['span', 'small'].map(kind => document.createElement(kind));
    name.textContent = text;
    share.setAttribute('aria-hidden', 'true');
    button.append(name, share);
    return button;
  };
  const decoded = (letters, T, S) => Array.from({ length: T }, (_, t) => Array.from(
    { length: S }, (_, s) => digits.indexOf(letters[t * S + s]) / (digits.length - 1)));
  const mean = all => all[0].map((row, t) => row.map((_, s) => all.reduce((sum, one) => sum + one[t][s], 0) / all.length));
  const percent = weight => `${Math.round(100 * weight)} %`;

  const light = (words, row) => [...words.children].forEach((button, i) => {
    const weight = row ? row[i] : 0;
    button.style.setProperty('--weight', weight.toFixed(3));
    button.lastChild.textContent = row && weight >= 0.045 ? percent(weight) : '';
  });
  const choose = button => {
    const words = button.parentElement, others = words === target ? source : target, place = +button.dataset.place;
    const row = words === target ? weights[place] : weights.map(each => each[place]);
    light(words, null);
    light(others, row);
    for (const other of room.querySelectorAll('.word')) {
      other.setAttribute('aria-pressed', other === button);
      if (other.parentElement === words) other.tabIndex = other === button ? 0 : -1;
    }
    const named = row.map((weight, i) => [weight, others.children[i].firstChild.textContent]).filter(
      ([weight]) => weight >= 0.045).sort((a, b) => b[0] - a[0]).slice(0, 6);
    const text = button.firstChild.textContent;
    spoken.textContent = (words === target ? `“${text}” looks at ` : `“${text}” is looked at by `)
      + (named.map(([weight, name]) => `“${name}” ${percent(weight)}`).join(', ') || 'nothing in particular');
  };
  const draw = () => {
    const shown = runs[run.selectedIndex];
    fill(sentence, shown.sentences.map((_, i) => `${i + 1}`));
    const { source: from, target: to, layers } = shown.sentences[sentence.selectedIndex];
    fill(layer, layers.map((_, i) => `${i + 1} of ${layers.length}`));
    const heads = layers[layer.selectedIndex].map(letters => decoded(letters, to.length, from.length));
    fill(head, heads.length > 1 ? ['mean of all', ...heads.map((_, i) => `${i + 1} of ${heads.length}`)] : ['1']);
    weights = heads.length > 1 && head.selectedIndex ? heads[head.selectedIndex - 1] : mean(heads);
    const before = room.querySelector('[aria-pressed=true]');
    const place = before && before.parentElement === target ? +before.dataset.place : 0;
    source.replaceChildren(...from.map(word));
    target.replaceChildren(...to.map(word));
    choose(target.children[Math.min(place, to.length - 1)]);
  };

  fill(run, runs.map(one => one.name));
  for (const select of [run, sentence, layer, head]) select.addEventListener('change', draw);
  for (const words of [source, target]) {
    for (const kind of ['pointerover', 'focusin', 'click']) {
      words.addEventListener(kind, event => {
        const button = event.target.closest('.word');
        if (button) choose(button);
      });
    }
    words.addEventListener('keydown', event => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const next = step && event.target.closest('.word') && words.children[+event.target.closest('.word').dataset.place + step];
      if (next) {
        event.preventDefault();
        next.focus();
      }
    });
  }
  draw();
  room.hidden = false;
})();
