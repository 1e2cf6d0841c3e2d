// The browser's half of live_plot: loads plotly.js once, draws and updates with Plotly.react, reports clicks and selections,
// shows a card with a picture beside the pointer.
// Streamlit calls the default export on mount and at every change of data or theme; what it returns is called on unmount.

const CONFIG = {
  displaylogo: false,
  modeBarButtons: [['toImage', 'resetScale2d']],
};
const MAP_CONFIG = {
  displaylogo: false,
  displayModeBar: true,
  scrollZoom: true,
  modeBarButtons: [['lasso2d', 'select2d', 'pan2d'], ['zoomIn2d', 'zoomOut2d', 'resetScale2d'], ['toImage']],
  // As sharp as the screen. The default is twice that, which takes a browser without a graphics card twice the time.
  plotGlPixelRatio: window.devicePixelRatio || 1,
};
const CARD_DISTANCE = 16; // px between pointer and card

function loadPlotly(url) {
  window.__cifarTlPlotly ??= new Promise((resolve, reject) => {
    const script = document.createElement('script');
    script.src = url;
    script.onload = () => (window.Plotly ? resolve(window.Plotly) : reject());
    script.onerror = reject;
    document.head.append(script);
  }).catch((error) => {
    window.__cifarTlPlotly = undefined; // the next update tries again
    throw error;
  });
  return window.__cifarTlPlotly;
}

// Theme colours arrive as CSS (`var(--st-text-color)`, `color-mix(...)`); Plotly reads only plain colours. A canvas
// pixel turns whatever the browser understands into one.
function colourResolver(host) {
  const probe = document.createElement('span');
  host.append(probe);
  const pixel = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const known = new Map();
  const resolve = (css) => {
    if (!known.has(css)) {
      probe.style.color = css;
      pixel.clearRect(0, 0, 1, 1);
      pixel.fillStyle = getComputedStyle(probe).color;
      pixel.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = pixel.getImageData(0, 0, 1, 1).data;
      known.set(css, `rgba(${r},${g},${b},${(a / 255).toFixed(3)})`);
    }
    return known.get(css);
  };
  const walk = (value) => {
    if (typeof value === 'string') return /^(var|color-mix)\(/.test(value) ? resolve(value) : value;
    if (Array.isArray(value)) return value.map(walk);
    if (value && typeof value === 'object') {
      return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, walk(inner)]));
    }
    return value;
  };
  return { walk, done: () => probe.remove() };
}

function themedLayout(layout, revision, height, font) {
  const axis = { gridcolor: 'var(--st-border-color)', zerolinecolor: 'var(--st-border-color)', automargin: true };
  const themed = {
    ...layout,
    height,
    autosize: true,
    uirevision: revision,
    paper_bgcolor: 'rgba(0,0,0,0)',
    plot_bgcolor: 'rgba(0,0,0,0)',
    font: { color: 'var(--st-text-color)', family: font, size: 13, ...layout.font },
    hoverlabel: {
      bgcolor: 'var(--st-secondary-background-color)',
      bordercolor: 'var(--st-border-color)',
      font: { color: 'var(--st-text-color)', family: font },
      align: 'left',
      ...layout.hoverlabel,
    },
    modebar: { bgcolor: 'rgba(0,0,0,0)', color: 'var(--st-gray-color)', activecolor: 'var(--st-text-color)', ...layout.modebar },
  };
  for (const name of ['xaxis', 'yaxis', ...Object.keys(layout).filter((key) => /^[xy]axis\d+$/.test(key))]) {
    themed[name] = { ...axis, ...layout[name] };
  }
  return themed;
}

function draw(Plotly, host) {
  const { data } = host.latest;
  const style = getComputedStyle(host);
  const colours = colourResolver(host);
  const layout = colours.walk(themedLayout(data.layout, data.revision, data.height, style.getPropertyValue('--st-font').trim()));
  const traces = drawable(colours.walk(data.traces));
  colours.done();
  Plotly.react(host, traces, layout, data.is_map ? MAP_CONFIG : CONFIG);
  if (!host.isListening) {
    host.isListening = true;
    host.on('plotly_click', ({ points: [point] }) => {
      if (host.latest.data.is_map) selectOne(Plotly, host, point);
      else host.latest.setStateValue('clicked', { x: point.x, y: point.y, z: point.z ?? null, curve: point.curveNumber });
    });
    host.toldSelected = 'null';
    host.on('plotly_selected', (selection) => {
      // Nothing in hand: a click beside all points. The outline of a lasso stays, and so does what is inside it.
      if (selection || !host.layout.selections?.length) tellSelected(host, selection?.points);
    });
    host.on('plotly_deselect', () => tellSelected(host, null));
    host.on('plotly_hover', (hovered) => showCard(host, hovered));
    host.on('plotly_unhover', () => hideCard(host));
    host.on('plotly_relayouting', () => hideCard(host));
    host.addEventListener('pointerdown', (event) => listenForLabel(host, event), true);
    host.addEventListener('pointerdown', () => (host.isOneSelected = false), true);
    // The sidebar changes our width without a resize of the window.
    host.resizing = new ResizeObserver(() => host.clientWidth > 0 && Plotly.Plots.resize(host));
    host.resizing.observe(host.parentElement);
  }
}

// A click on a category beside an axis. Plotly has no event for it: its drag areas lie over the labels and cover the page at
// pointerdown, so the release is awaited on the window, and where it happened is worked out from the axes.
function listenForLabel(host, pressed) {
  if (!host.latest.data.labels) return;
  const release = (released) => {
    const moved = Math.hypot(released.clientX - pressed.clientX, released.clientY - pressed.clientY);
    const label = moved < 5 && labelAt(host, released);
    if (label) host.latest.setStateValue('clicked', { ...label, z: null, curve: null });
  };
  window.addEventListener('pointerup', release, { once: true, capture: true });
}

function labelAt(host, { clientX, clientY }) {
  const box = host.getBoundingClientRect();
  const { xaxis, yaxis } = host._fullLayout;
  const [x, y] = [clientX - box.left - xaxis._offset, clientY - box.top - yaxis._offset];
  const category = (axis, pixel) => axis._categories?.[Math.round(axis.p2l(pixel))];
  const [isInColumn, isInRow] = [x >= 0 && x <= xaxis._length, y >= 0 && y <= yaxis._length];
  if (x < 0 && isInRow) return { x: null, y: category(yaxis, y) };
  if (y > yaxis._length && isInColumn) return { x: category(xaxis, x), y: null };
  return null;
}

// Browsers without WebGL (none of a graphics card, and none in software) draw the same points as SVG: slower, but there.
function drawable(traces) {
  if (!traces.some((trace) => trace.type === 'scattergl') || hasWebGL()) return traces;
  return traces.map((trace) => (trace.type === 'scattergl' ? { ...trace, type: 'scatter' } : trace));
}

function hasWebGL() {
  window.__cifarTlHasWebGL ??= Boolean(document.createElement('canvas').getContext('webgl'));
  return window.__cifarTlHasWebGL;
}

// The numbers that the selected points carry. Plotly tells a selection again after each update of the chart: told once is enough.
function tellSelected(host, points) {
  const numbers = points?.map((point) => point.customdata).filter((number) => number !== undefined) ?? [];
  const selected = numbers.length > 0 ? numbers : null;
  if ((!selected && host.isOneSelected) || JSON.stringify(selected) === host.toldSelected) return;
  host.toldSelected = JSON.stringify(selected);
  host.latest.setStateValue('selected', selected);
}

// A click is a selection of one, in place of a lasso before it, of whose end Plotly tells before and after it tells of the click.
async function selectOne(Plotly, host, point) {
  if (point.customdata === undefined) return;
  tellSelected(host, [point]);
  host.isOneSelected = true;
  if (!host.layout.selections?.length) return;
  await Plotly.relayout(host, { selections: [] });
  await Plotly.restyle(host, { selectedpoints: [null] });
}

function showCard(host, { points: [point], event }) {
  const { cards } = host.latest.data;
  const text = cards?.texts[point.customdata];
  if (text === undefined) return;
  const card = host.parentElement.querySelector('.cifar-tl-plot-card');
  const picture = card.firstElementChild;
  picture.hidden = !cards.sheet;
  if (cards.sheet) {
    const { columns, rows, pixels } = cards;
    const [row, column] = [Math.floor(point.customdata / columns), point.customdata % columns];
    picture.classList.toggle('pixelated', cards.is_pixelated);
    picture.style.width = picture.style.height = `${pixels}px`;
    if (picture.sheet !== cards.sheet) {
      picture.sheet = cards.sheet; // fetched now, when a picture is wanted for the first time
      picture.style.backgroundImage = `url("${cards.sheet}")`;
    }
    picture.style.backgroundSize = `${columns * pixels}px ${rows * pixels}px`;
    picture.style.backgroundPosition = `${-column * pixels}px ${-row * pixels}px`;
  }
  card.lastElementChild.textContent = text;
  card.hidden = false;
  place(card, host.parentElement.getBoundingClientRect(), event);
}

// Right of the pointer and below it; on the other side where the chart ends.
function place(card, frame, { clientX, clientY }) {
  const [x, y] = [clientX - frame.left, clientY - frame.top];
  const isLeft = x + CARD_DISTANCE + card.offsetWidth > frame.width;
  const isAbove = y + CARD_DISTANCE + card.offsetHeight > frame.height;
  card.style.left = `${isLeft ? x - CARD_DISTANCE - card.offsetWidth : x + CARD_DISTANCE}px`;
  card.style.top = `${isAbove ? y - CARD_DISTANCE - card.offsetHeight : y + CARD_DISTANCE}px`;
}

function hideCard(host) {
  host.parentElement.querySelector('.cifar-tl-plot-card').hidden = true;
}

export default function ({ data, parentElement, setStateValue }) {
  const host = parentElement.querySelector('.cifar-tl-plot');
  const error = parentElement.querySelector('.cifar-tl-plot-error');
  host.latest = { data, setStateValue };
  host.setAttribute('aria-label', data.description);
  host.style.height = `${data.height}px`;
  loadPlotly(data.script).then(
    (Plotly) => {
      if (!host.isConnected) return;
      error.hidden = true;
      host.hidden = false;
      draw(Plotly, host);
    },
    () => {
      host.hidden = true;
      error.textContent = 'The chart cannot be drawn: the file plotly.min.js did not load. Restart the dashboard, then reload this page.';
      error.hidden = false;
    },
  );
  return () => {
    host.resizing?.disconnect();
    host.isListening = false;
    if (window.Plotly) window.Plotly.purge(host);
  };
}
