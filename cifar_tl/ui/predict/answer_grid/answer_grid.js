// The browser's half of answer_grid: one button a card, all text as text. Cards that did not change stay as they are, and so does the focus.

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

function picture(type, data, className, alt) {
  const element = make('img', className);
  element.alt = alt;
  element.onload = () => element.classList.toggle('tiny', Math.max(element.naturalWidth, element.naturalHeight) <= 64);
  if (data) element.src = `data:image/${type};base64,${data}`;
  return element;
}

function bar({ name, percent, text }) {
  const row = make('span', 'bar', make('span', 'name', name), make('span', 'share', text));
  row.style.setProperty('--percent', `${percent}%`);
  return row;
}

function answer({ run, verdict, bars, superclass, note, problem }) {
  const head = make('span', 'head', ...(run ? [make('span', 'run', run)] : []), ...(verdict ? [make('span', 'verdict', verdict)] : []));
  const block = make('span', 'answer', head, ...bars.map(bar));
  if (verdict) block.dataset.doubtful = '';
  if (!run && !verdict) head.hidden = true;
  if (superclass) block.append(make('span', 'note', superclass));
  if (note) block.append(make('span', 'note', note));
  if (problem) block.append(make('span', 'note', problem));
  return block;
}

function card(data, choose) {
  const preview = make('span', 'preview', picture('jpeg', data.preview, 'photo', ''));
  const pictures = make('span', 'pictures', preview);
  if (data.seen) {
    const seen = picture('png', data.seen, 'seen', '');
    seen.title = 'What the model sees';
    pictures.append(make('span', 'seeing', seen, make('span', 'note', 'what it\nsees')));
  }
  const title = make('span', 'title', make('span', 'file', data.name), ...(data.badge ? [make('span', 'badge', data.badge)] : []));
  const element = make('button', 'card', title, make('span', 'body', pictures, make('span', 'said', ...data.answers.map(answer))));
  element.type = 'button';
  element.title = data.name;
  element.onclick = () => choose(data.number);
  return element;
}

export default function ({ data, parentElement, setStateValue }) {
  const grid = parentElement.querySelector('.answers');
  const choose = (number) => {
    for (const [each, { element }] of grid.cards) element.ariaPressed = String(each === number);
    setStateValue('selected', number);
  };
  const before = grid.cards ?? new Map();
  grid.cards = new Map();
  for (const each of data.cards) {
    const text = JSON.stringify(each);
    const kept = before.get(each.number);
    const element = kept?.text === text ? kept.element : card(each, choose);
    element.ariaPressed = String(each.number === data.chosen);
    grid.cards.set(each.number, { text, element });
  }
  const elements = [...grid.cards.values()].map(({ element }) => element);
  if (elements.length !== grid.children.length || elements.some((element, index) => grid.children[index] !== element)) {
    grid.replaceChildren(...elements);
  }
  grid.classList.toggle('double', data.cards.some(({ answers }) => answers.length > 1));
}
